//! The command line as a specification: what may be typed, what is refused, and how the program ends.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words(line))
}

/// Cuts a line as a shell would, as far as examples go: quotes, and an end at `|`, `>`, `&&` or two spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = None;
    let cut = line
        .trim_start()
        .find("   ")
        .map_or(line.trim(), |at| &line.trim_start()[..at]);
    for c in cut.chars().chain([' ']) {
        match (c, quoted) {
            ('\'' | '"', None) => quoted = Some(c),
            (c, Some(q)) if c == q => quoted = None,
            (' ', None) if matches!(word.as_str(), "|" | ">" | "&&") => break,
            (' ', None) if word.is_empty() => {}
            (' ', None) => words.push(std::mem::take(&mut word)),
            (c, _) => word.push(c),
        }
    }
    words
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_example_in_every_help_is_a_command_that_parses() {
    let mut seen = 0;
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        let help = command.get_before_help().map(ToString::to_string).unwrap_or_default();
        let joined = help.replace("\\\n", " ");
        for line in joined
            .lines()
            .filter_map(|line| line.find("headwater ").map(|at| &line[at..]))
        {
            let line = line.replace("$?", "8").replace(" ID", " snap-1");
            let line = if line.contains("deployment add") && !line.contains("--uri") {
                format!("{line} --uri mongodb://h")
            } else {
                line
            };
            if let Err(error) = parse(&line) {
                panic!("{line}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} examples were found");
}

#[test]
fn every_command_with_something_to_say_leads_with_examples() {
    let all = Cli::command();
    for name in [
        "quickstart",
        "daemon",
        "agent",
        "deployment",
        "status",
        "timeline",
        "snapshot",
        "schedule",
        "groom",
        "restore",
        "restores",
        "access",
    ] {
        let help = all
            .find_subcommand(name)
            .unwrap()
            .get_before_help()
            .map(ToString::to_string);
        assert!(help.is_some_and(|h| h.starts_with("Examples:")), "{name}");
    }
}

#[test]
fn what_makes_sense_is_understood() {
    for line in [
        "headwater quickstart --uri mongodb://h",
        "headwater quickstart --uri mongodb://h --name shop --dir d --listen 127.0.0.1:1",
        "headwater daemon --dir d --listen 0.0.0.0:7480 --store file:/b --config f",
        "headwater agent --service http://a:1,http://b:2 --key-file f",
        "headwater --service http://a:1 status",
        "headwater status --service http://a:1 --output json --key-file f",
        "headwater deployment add shop --uri mongodb://h --snapshot-interval 6h",
        "headwater deployment add shop --uri mongodb://h --encrypt",
        "headwater deployment add shop --uri mongodb://h --no-encrypt",
        "headwater daemon --dir d --master-key-file f",
        "headwater key new",
        "headwater key new k2026",
        "headwater access create alice --role viewer",
        "headwater access create oncall --role restorer --deployment shop --deployment blog",
        "headwater access create agent --agent --deployment shop",
        "headwater daemon --tls-cert c --tls-key k --ca-file ca",
        "headwater status --service https://a:1 --ca-file ca",
        "headwater key rotate shop",
        "headwater deployment remove shop --yes",
        "headwater deployment resync shop",
        "headwater timeline shop",
        "headwater snapshot take shop --wait",
        "headwater snapshot delete shop snap-1 --yes",
        "headwater restore shop --at latest --to-uri mongodb://h --drop --yes",
        "headwater restore shop/rs0 --at snapshot:s1 --to-dir d",
        "headwater restore shop --at -15m --to-archive -",
        "headwater restore shop --at=-15m --to-archive - --dry-run",
        "headwater restore shop --at 1,2 --to-archive f --ns-include a.* --ns-include b.c --ns-rename a.*=z.* --with-users",
        "headwater restores list",
        "headwater restores show 7",
        "headwater completions zsh",
        "headwater explain exit 8",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "headwater",
        "headwater quickstart",
        "headwater deployment add shop",
        "headwater deployment add a/b --uri mongodb://h",
        "headwater deployment add shop --uri mongodb://h --encrypt --no-encrypt",
        "headwater key new a/b",
        "headwater access create alice",
        "headwater access create alice --role agent",
        "headwater access create alice --role viewer --agent --deployment shop",
        "headwater access create agent --agent",
        "headwater daemon --tls-cert c",
        "headwater deployment add shop --uri mongodb://h --snapshot-interval often",
        "headwater restore shop --to-dir d",
        "headwater restore shop --at latest",
        "headwater restore shop --at yesterday --to-dir d",
        "headwater restore shop --at 2026-11-22T10:33:11 --to-dir d",
        "headwater restore shop --at latest --to-dir d --to-archive f",
        "headwater restore shop --at latest --to-dir d --drop",
        "headwater restore shop --at latest --to-dir d --ns-include shop",
        "headwater restore shop --at latest --to-dir d --ns-rename a.*=b.c",
        "headwater restores show seven",
        "headwater snapshot delete shop",
        "headwater status --output yaml",
        "headwater explain exit 300",
        "headwater completions cobol",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line} was understood"));
        assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{line}");
    }
}

#[test]
fn commands_end_with_the_documented_code() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("k");
    std::fs::write(&key, "key\n").unwrap();
    let taken = dir.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let nobody = format!("--service http://127.0.0.1:1 --key-file {}", key.display());
    let no_key = format!("--service http://127.0.0.1:1 --key-file {}/none", dir.path().display());
    for (line, exit) in [
        ("headwater explain exit 8".to_owned(), None),
        ("headwater explain exit 3".to_owned(), Some(Exit::Usage)),
        (format!("headwater status {nobody}"), Some(Exit::Unreachable)),
        (
            format!("headwater deployment list {nobody} --output json"),
            Some(Exit::Unreachable),
        ),
        (format!("headwater status {no_key}"), Some(Exit::Failed)),
        ("headwater status --service ftp://h".to_owned(), Some(Exit::Usage)),
        (
            "headwater agent --service http://127.0.0.1:1".to_owned(),
            Some(Exit::Usage),
        ),
        (
            format!(
                "headwater restore shop --at latest --to-archive {} {nobody}",
                taken.display()
            ),
            Some(Exit::Conflict),
        ),
        (
            format!("headwater daemon --listen nowhere --dir {}/d", dir.path().display()),
            Some(Exit::Usage),
        ),
        (
            format!("headwater daemon --store ftp://b --dir {}/d", dir.path().display()),
            Some(Exit::Usage),
        ),
        (
            format!("headwater daemon --config {}/none", dir.path().display()),
            Some(Exit::Failed),
        ),
    ] {
        let outcome = run(parse(&line).unwrap());
        assert_eq!(outcome.err().map(|failure| failure.exit), exit, "{line}");
    }
}

#[test]
fn completions_know_the_commands() {
    let mut script = Vec::new();
    clap_complete::generate(
        clap_complete::Shell::Bash,
        &mut Cli::command(),
        "headwater",
        &mut script,
    );
    let script = String::from_utf8(script).unwrap();
    assert!(script.contains("quickstart") && script.contains("--to-archive"));
}
