//! Who may do what, with real keys over real connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bson::{Bson, Document, doc};
use headwater_tests::proof::until_complete;
use headwater_tests::{Authority, Bed, Ended, Headwater, ReplicaSet, ReplicaSetSpec, Trio, until};
use serde_json::Value;

const VERSION: &str = "6.0.5";
/// The exit code of a key that is refused.
const AUTH: i32 = 6;

async fn source(bed: &Bed) -> Result<ReplicaSet> {
    let spec = ReplicaSetSpec::single(VERSION).not_replayable();
    let source = bed.replica_set(spec).await?;
    fill(&source).await?;
    Ok(source)
}

async fn fill(source: &ReplicaSet) -> Result<()> {
    let items: mongodb::Collection<Document> = source.client().database("shop").collection("items");
    items.insert_many((0..200).map(|n| doc! { "_id": n })).await?;
    Ok(())
}

/// Makes a key and keeps it in a file.
async fn key(headwater: &Headwater, name: &str, what: &[&str]) -> Result<PathBuf> {
    let made = headwater.run(["access", "create", name].iter().chain(what)).await?;
    ensure!(made.code == 0, "{}", made.stderr);
    let key = made.stdout.trim();
    ensure!(key.starts_with("hw_") && key.len() == 76, "{key}");
    let file = headwater.folder().join(format!("{name}.key"));
    std::fs::write(&file, key)?;
    Ok(file)
}

async fn run_as(headwater: &Headwater, key: &Path, arguments: &[&str]) -> Result<Ended> {
    let mut command = headwater.command(arguments);
    command.env("HEADWATER_KEY_FILE", key);
    Headwater::end(command).await
}

/// Requires that a command is refused for its key, with these words.
async fn refused(headwater: &Headwater, key: &Path, arguments: &[&str], words: &str) -> Result<()> {
    let ended = run_as(headwater, key, arguments).await?;
    let right = ended.code == AUTH && ended.stderr.contains(words);
    ensure!(
        right,
        "{arguments:?} ended with {}: {}{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
    Ok(())
}

async fn done(headwater: &Headwater, key: &Path, arguments: &[&str]) -> Result<Value> {
    let arguments = [arguments, &["--output", "json"]].concat();
    let ended = run_as(headwater, key, &arguments).await?;
    ensure!(
        ended.code == 0,
        "{arguments:?} ended with {}: {}",
        ended.code,
        ended.stderr
    );
    Ok(serde_json::from_str(&ended.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_what_is_its_and_a_restore_is_a_right_of_its_own() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source(&bed).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    let uri = source.uri();
    for name in ["default", "other"] {
        headwater.json(&["deployment", "add", name, "--uri", &uri]).await?;
    }
    let agent = key(&headwater, "agent-default", &["--agent", "--deployment", "default"]).await?;
    headwater.start_agent_with_key(&agent)?;
    until_complete(&headwater).await?;

    let viewer = key(&headwater, "viewer", &["--role", "viewer"]).await?;
    let operator = key(&headwater, "operator", &["--role", "operator"]).await?;
    let restorer = key(
        &headwater,
        "restorer",
        &["--role", "restorer", "--deployment", "default"],
    )
    .await?;
    let stranger = key(&headwater, "stranger", &["--role", "restorer", "--deployment", "other"]).await?;
    let out = bed.new_folder("out")?;
    let to = |name: &str| out.join(name).display().to_string();
    let restore = |to: &str| ["restore", "default", "--at", "latest", "--yes", "--to-dir", to].map(str::to_owned);

    // An agent is nobody else.
    for arguments in [&["status"][..], &["deployment", "list"], &["access", "list"]] {
        refused(&headwater, &agent, arguments, "lacks the right to").await?;
    }
    // Who sees does not change, and does not restore.
    done(&headwater, &viewer, &["status"]).await?;
    refused(
        &headwater,
        &viewer,
        &["snapshot", "take", "default"],
        "right to change backups: its role is viewer",
    )
    .await?;
    let by_viewer = restore(&to("viewer"));
    let by_viewer: Vec<&str> = by_viewer.iter().map(String::as_str).collect();
    refused(&headwater, &viewer, &by_viewer, "right to restore: its role is viewer").await?;
    // Who changes does not restore, nor let others in.
    done(&headwater, &operator, &["snapshot", "take", "default"]).await?;
    refused(
        &headwater,
        &operator,
        &by_viewer,
        "right to restore: its role is operator",
    )
    .await?;
    refused(&headwater, &operator, &["access", "list"], "right to administer").await?;
    // Who restores does so, of what the key is for.
    let by_restorer = restore(&to("restorer"));
    let by_restorer: Vec<&str> = by_restorer.iter().map(String::as_str).collect();
    done(&headwater, &restorer, &by_restorer).await?;
    let size = std::fs::metadata(out.join("restorer/shop/items.bson"))?.len();
    ensure!(size > 200 * 10, "{size} bytes came back");
    refused(
        &headwater,
        &restorer,
        &["deployment", "stop", "default"],
        "right to change backups",
    )
    .await?;
    refused(
        &headwater,
        &stranger,
        &by_viewer,
        "for other deployments, not for default",
    )
    .await?;
    refused(
        &headwater,
        &stranger,
        &["restores", "show", "1"],
        "for other deployments",
    )
    .await?;
    // A list shows a key what it is for.
    for (key, wanted) in [(&stranger, "other"), (&restorer, "default")] {
        let list = done(&headwater, key, &["deployment", "list"]).await?;
        let names: Vec<&str> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .collect();
        ensure!(names == [wanted], "{list}");
    }
    let sets = |status: &Value| status["replica_sets"].as_array().map_or(0, Vec::len);
    let (theirs, all) = (
        done(&headwater, &stranger, &["status"]).await?,
        done(&headwater, &viewer, &["status"]).await?,
    );
    ensure!((sets(&theirs), sets(&all)) == (0, 1), "{theirs}\n{all}");
    ensure!(done(&headwater, &stranger, &["restores", "list"]).await? == Value::Array(Vec::new()));
    // The scoped agent never got the other deployment's order, with its password.
    ensure!(
        headwater.json(&["status"]).await?["replica_sets"]
            .as_array()
            .map(Vec::len)
            == Some(1)
    );

    // Who did what is known, also of a restore; who may not do it has done nothing.
    let log = headwater.json(&["access", "log"]).await?;
    let told = |who: &str, what: &str| -> Result<Value> {
        let deeds = log.as_array().into_iter().flatten();
        let its: Vec<&Value> = deeds
            .filter(|deed| deed["who"] == who && deed["what"] == what)
            .collect();
        match its.as_slice() {
            [deed] if deed["outcome"].is_string() => Ok((*deed).clone()),
            _ => bail!("{who}, {what}: {its:?} of {log}"),
        }
    };
    for what in ["restore start", "restore archive"] {
        let deed = told("restorer", what)?;
        ensure!(deed["deployment"] == "default", "{deed}");
    }
    ensure!(told("operator", "snapshot take")?["outcome"] == "done");
    ensure!(log.to_string().contains("done: key viewer, viewer"), "{log}");
    for nobody in ["\"viewer\"", "\"stranger\"", "\"agent-default\""] {
        ensure!(!log.to_string().contains(nobody), "{nobody} is in {log}");
    }
    let turned_away = std::fs::read_to_string(headwater.log("daemon"))?;
    ensure!(turned_away.contains("turned away") && turned_away.contains("who=\"viewer\""));

    // What is revoked, or never was, is shut out.
    headwater.json(&["access", "revoke", "viewer"]).await?;
    refused(&headwater, &viewer, &["status"], "not known here").await?;
    let list = headwater.json(&["access", "list"]).await?;
    ensure!(!list.to_string().contains("\"viewer\""), "{list}");
    let secret = std::fs::read_to_string(&restorer)?;
    let secret = secret.rsplit('_').next().unwrap_or_default();
    ensure!(!list.to_string().contains(secret), "a list shows a secret");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_an_agent_and_its_source_talk_by_tls_only() -> Result<()> {
    let bed = Bed::new().await?;
    let authority = Authority::new(&bed.new_folder("authority")?)?;
    let next = Authority::new(&bed.new_folder("next")?)?;
    let (certificate, database) = (authority.sign("node")?, authority.sign("database")?);
    // Both authorities are believed, since one shall take the place of the other.
    let believed = bed.path().join("believed.pem");
    let both = std::fs::read_to_string(authority.file())? + &std::fs::read_to_string(next.file())?;
    std::fs::write(&believed, both)?;
    // One way in is left open for the test's own client; the agent takes the other one.
    let mut spec = ReplicaSetSpec::single(VERSION).not_replayable();
    let ca = authority.file().display().to_string();
    let both = database.both.display().to_string();
    spec.mongod.arguments = [
        "--tlsMode",
        "preferTLS",
        "--tlsCertificateKeyFile",
        &both,
        "--tlsCAFile",
        &ca,
    ]
    .map(str::to_owned)
    .into();
    spec.mongod
        .arguments
        .push("--tlsAllowConnectionsWithoutCertificates".to_owned());
    let source = bed.replica_set(spec).await?;
    fill(&source).await?;
    let uri = format!("{}&tls=true&tlsCAFile={ca}", source.uri());

    let mut trio = Trio::start(bed.headwater()?.with_tls(&believed, &certificate), 3).await?;
    let add = ["deployment", "add", "default", "--uri", &uri];
    trio.commands().json(&add).await?;
    let agent = key(
        trio.commands(),
        "agent-default",
        &["--agent", "--deployment", "default"],
    )
    .await?;
    trio.start_agent_with_key(0, &agent)?;
    trio.until_complete().await?;
    let secured: i64 = seen_by_tls(&source).await?;
    ensure!(secured > 0, "the source saw no connection with TLS");

    // A restore is a right of its own here too, and every daemon knows who has it.
    let headwater = trio.commands();
    let viewer = key(headwater, "viewer", &["--role", "viewer"]).await?;
    let restorer = key(headwater, "restorer", &["--role", "restorer"]).await?;
    let to = bed.new_folder("out")?.join("dump").display().to_string();
    let restore = ["restore", "default", "--at", "latest", "--yes", "--to-dir", &to];
    refused(headwater, &viewer, &restore, "right to restore: its role is viewer").await?;
    done(headwater, &restorer, &restore).await?;
    ensure!(Path::new(&to).join("shop/items.bson").is_file());

    // Who speaks plainly is told how to; who knows no authority believes nobody.
    for url in headwater.service().split(',') {
        let plain = url.replace("https://", "http://");
        let mut command = headwater.command(["status"]);
        command.env("HEADWATER_SERVICE", plain);
        let ended = Headwater::end(command).await?;
        ensure!(ended.code != 0 && ended.stderr.contains("TLS only"), "{}", ended.stderr);
        let mut command = headwater.command(["status"]);
        command.env("HEADWATER_SERVICE", url).env_remove("HEADWATER_CA_FILE");
        let ended = Headwater::end(command).await?;
        ensure!(ended.code != 0 && !ended.stdout.contains("default"), "{}", ended.stderr);
    }

    // A daemon goes and comes back with all the others securely; so does the owner's work.
    let owner = trio.owner().await?;
    trio.daemon(owner)?.kill()?;
    trio.until_moved_from(owner).await?;
    trio.start_daemon(owner).await?;
    trio.until_whole().await?;

    // A new certificate is taken into use without a start.
    let renewed = next.sign("node")?;
    std::fs::copy(&renewed.key, &certificate.key)?;
    std::fs::copy(&renewed.cert, &certificate.cert)?;
    for url in trio.commands().service().split(',') {
        until("the new certificate", || async {
            let mut command = trio.commands().command(["access", "list"]);
            command
                .env("HEADWATER_SERVICE", url)
                .env("HEADWATER_CA_FILE", next.file());
            let ended = Headwater::end(command).await?;
            Ok((ended.code == 0).then_some(()))
        })
        .await?;
    }
    trio.until_whole().await?;
    trio.require_running()
}

/// How many connections the source has seen with TLS.
async fn seen_by_tls(source: &ReplicaSet) -> Result<i64> {
    let status = source
        .client()
        .database("admin")
        .run_command(doc! { "serverStatus": 1 })
        .await?;
    let seen = status.get_document("transportSecurity")?;
    let count = |version: &str| match seen.get(version) {
        Some(Bson::Int64(count)) => *count,
        Some(Bson::Int32(count)) => i64::from(*count),
        _ => 0,
    };
    Ok(["1.2", "1.3"].into_iter().map(count).sum())
}

/// Words that must be seen by nobody, each with what it is.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn require_absent(&self, place: &str, text: &str) -> Result<()> {
        for (what, secret) in &self.0 {
            let Some(at) = text.find(secret.as_str()) else { continue };
            let line = text[..at].lines().count();
            bail!("{place} shows {what} in line {line} of {}", text.lines().count());
        }
        Ok(())
    }

    /// The command lines of all processes that this user may see.
    fn require_absent_in_command_lines(&self) -> Result<()> {
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path().join("cmdline");
            // Most are no processes; and a process may be gone by now.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            self.require_absent(&path.display().to_string(), &String::from_utf8_lossy(&bytes))?;
        }
        Ok(())
    }
}

/// A user whose password must not be seen; logging in needs it although the server asks nobody to.
async fn uri_with_user(server: &ReplicaSet, password: &str, role: &str) -> Result<String> {
    let roles = [role, "clusterMonitor"].map(|role| doc! { "role": role, "db": "admin" });
    let user = doc! { "createUser": "keeper", "pwd": password, "roles": roles.to_vec() };
    server.client().database("admin").run_command(user).await?;
    let uri = server
        .uri()
        .replacen("mongodb://", &format!("mongodb://keeper:{password}@"), 1);
    Ok(uri + "&authSource=admin")
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_log_no_error_and_no_list_of_processes() -> Result<()> {
    let bed = Bed::new().await?;
    let target_spec = ReplicaSetSpec::single(VERSION).not_replayable();
    let (source, target) = (source(&bed).await?, bed.replica_set(target_spec).await?);
    let mut secrets = Secrets(Vec::new());
    let mut secret = |what, word: String| {
        secrets.0.push((what, word.clone()));
        word
    };
    let from = uri_with_user(
        &source,
        &secret("the source's password", "rivermouth7341".into()),
        "backup",
    )
    .await?;
    let to = uri_with_user(&target, &secret("the target's password", "estuary9052".into()), "root").await?;
    let wrong = to.replace("estuary9052", &secret("a wrong password", "backwater6610".into()));

    let mut headwater = bed.headwater()?.with_env("HEADWATER_LOG", "trace");
    headwater.start_daemon().await?;
    let restorer = key(&headwater, "restorer", &["--role", "restorer"]).await?;
    let of_agent = ["--agent", "--deployment", "default", "--deployment", "gone"];
    let agent = key(&headwater, "agent", &of_agent).await?;
    headwater.start_agent_with_key(&agent)?;
    let admin = headwater.node_folder().join("admin.key");
    for (what, file) in [
        ("the administrator's key", &admin),
        ("the cluster's key", &headwater.node_folder().join("cluster.key")),
        ("the restorer's key", &restorer),
        ("the agent's key", &agent),
    ] {
        let key = std::fs::read_to_string(file)?;
        let key = key.trim().rsplit('_').next().unwrap_or_default();
        ensure!(key.len() == 64, "{what} is too short to be looked for");
        secret(what, key.to_owned());
    }

    // What every command said, while the lists of processes are looked at.
    let run = async |key: &Path, arguments: &[&str], uri: Option<(&str, &str)>| {
        let mut command = headwater.command(arguments);
        command.env("HEADWATER_LOG", "trace").env("HEADWATER_KEY_FILE", key);
        command.envs(uri);
        let mut ending = std::pin::pin!(Headwater::end(command));
        let ended = loop {
            secrets.require_absent_in_command_lines()?;
            let a_while = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! {
                biased;
                ended = &mut ending => break ended?,
                () = a_while => {}
            }
        };
        secrets.require_absent(&format!("{arguments:?}"), &format!("{}{}", ended.stdout, ended.stderr))?;
        anyhow::Ok(ended)
    };
    let add = ["deployment", "add", "default"];
    let source_uri = Some(("HEADWATER_SOURCE_URI", from.as_str()));
    ensure!(run(&admin, &add, source_uri).await?.code == 0);
    // One that lets nobody in has a password all the same.
    let locked = from.replace("rivermouth7341", "backwater6610");
    let locked = Some(("HEADWATER_SOURCE_URI", locked.as_str()));
    let ended = run(&admin, &add, locked).await?;
    ensure!(ended.code != 0, "a deployment was added twice: {}", ended.stdout);
    ensure!(run(&admin, &["deployment", "add", "gone"], locked).await?.code == 0);
    let complete = |status: &Value| {
        let set = status["replica_sets"]
            .as_array()?
            .iter()
            .find(|set| set["name"] == "default/rs0")?;
        (set["phase"] == "complete" && !set["restorable"].is_null()).then_some(())
    };
    headwater
        .until("a first restorable point", &["status"], complete)
        .await?;
    let told = |status: &Value| status["alerts"].to_string().contains("gone").then_some(());
    headwater
        .until("words about what is not to be had", &["status"], told)
        .await?;
    let restore = ["restore", "default", "--at", "latest", "--yes"];
    let ended = run(&restorer, &restore, Some(("HEADWATER_TARGET_URI", &wrong))).await?;
    ensure!(ended.code != 0, "a wrong password opened the target");
    let ended = run(&restorer, &restore, Some(("HEADWATER_TARGET_URI", &to))).await?;
    ensure!(ended.code == 0, "{}", ended.stderr);
    for arguments in [
        &["status"][..],
        &["deployment", "list"],
        &["restores", "list"],
        &["access", "list"],
        &["access", "log"],
        &["alerts", "list"],
    ] {
        let shown = run(&admin, &[arguments, &["--output", "json"]].concat(), None).await?;
        ensure!(shown.code == 0, "{}", shown.stderr);
    }
    for role in ["daemon", "agent"] {
        let log = std::fs::read(headwater.log(role))?;
        let log = String::from_utf8_lossy(&log);
        ensure!(
            log.contains("TRACE") || log.contains("DEBUG"),
            "the log of the {role} tells too little"
        );
        secrets.require_absent(&format!("the log of the {role}"), &log)?;
    }
    Ok(())
}
