//! Where a backing store is, as people write it:
//!
//! * `file:/path/to/folder`
//! * `mongodb://user@host1,host2,host3/database?passwordFile=/path&…` (and `mongodb+srv:`), every other option being the
//!   driver's own
//! * `s3://bucket/prefix?region=…&endpoint=…&pathStyle=…&caFile=…&credentialsFile=…&profile=…&conditions=…`
//! * `gs://bucket/prefix?credentialsFile=…&endpoint=…&caFile=…&conditions=…`
//! * `az://container/prefix?account=…&keyFile=…&endpoint=…&caFile=…&conditions=…`
//!
//! Shown and debugged, a URI says nothing secret: neither what stands before an `@` nor any option.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::redact;

/// A backing store.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUri {
    /// A folder of this machine, or one that all machines have mounted.
    File(PathBuf),
    /// A database of a MongoDB replica set.
    Mongodb(MongodbStore),
    /// A bucket of a service that speaks S3.
    S3(S3Store),
    /// A bucket of Google Cloud Storage.
    Google(GoogleStore),
    /// A container of Azure Blob Storage.
    Azure(AzureStore),
}

/// A database of a MongoDB replica set.
#[derive(Clone, PartialEq, Eq)]
pub struct MongodbStore {
    /// For the driver, without the options that are ours. May hold a password.
    pub connection: String,
    /// Its name.
    pub database: String,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
}

/// A bucket.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Store {
    /// Its name.
    pub bucket: String,
    /// What every key begins with, without a `/` at either end; may be empty.
    pub prefix: String,
    /// Key id and secret, when they stand in the URI.
    pub key: Option<(String, String)>,
    /// `None`: as the environment says, else `us-east-1`.
    pub region: Option<String>,
    /// `http(s)://host:port`; `None`: as the environment says, else Amazon's.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path and not in the host. `None`: yes with an endpoint, no without.
    pub path_style: Option<bool>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A file in the format of `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// Which section of such a file. `None`: as the environment says, else `default`.
    pub profile: Option<String>,
    /// What to do with a service that ignores conditions.
    pub conditions: Conditions,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GoogleStore {
    /// Its name.
    pub bucket: String,
    /// What every key begins with, without a `/` at either end; may be empty.
    pub prefix: String,
    /// The credentials of a service account or of a user. `None`: `GOOGLE_APPLICATION_CREDENTIALS`, else the machine's own.
    pub credentials_file: Option<PathBuf>,
    /// `http(s)://host:port`; `None`: Google's.
    pub endpoint: Option<String>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What to do with a service that ignores conditions.
    pub conditions: Conditions,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AzureStore {
    /// Its name.
    pub container: String,
    /// What every key begins with, without a `/` at either end; may be empty.
    pub prefix: String,
    /// The storage account. `None`: `AZURE_STORAGE_ACCOUNT_NAME`.
    pub account: Option<String>,
    /// A file whose first line is the account's key. `None`: the environment, else the machine's own identity.
    pub key_file: Option<PathBuf>,
    /// `http(s)://host:port/…`; `None`: Azure's.
    pub endpoint: Option<String>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What to do with a service that ignores conditions.
    pub conditions: Conditions,
}

/// What to do with a service that ignores `If-None-Match`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conditions {
    /// It is refused at start-up.
    #[default]
    Required,
    /// It is warned of; two daemons that write to it at once may destroy each other's oplog.
    Warn,
}

impl FromStr for StoreUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "file" => file(&text["file:".len()..]),
            "mongodb" | "mongodb+srv" => mongodb(text).map(StoreUri::Mongodb),
            "s3" => s3(text).map(StoreUri::S3),
            "gs" => google(text).map(StoreUri::Google),
            "az" => azure(text).map(StoreUri::Azure),
            _ => Err(
                "write file:/path/to/folder, mongodb://host1,host2,host3/database, s3://bucket/prefix, gs://bucket/prefix or \
                 az://container/prefix"
                    .to_owned(),
            ),
        }
    }
}

fn file(rest: &str) -> Result<StoreUri, String> {
    match rest.strip_prefix("//").unwrap_or(rest) {
        "" => Err("the path is missing; write file:/path/to/folder".to_owned()),
        path => Ok(StoreUri::File(path.into())),
    }
}

/// Names and values, still encoded.
type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// Cuts `scheme://authority/path?options`.
fn cut(text: &str) -> Option<(&str, &str, &str, Pairs<'_>)> {
    let (scheme, rest) = text.split_once("://")?;
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let options = options.split('&').filter(|option| !option.is_empty());
    let options = options.map(|option| option.split_once('=').unwrap_or((option, "")));
    Some((scheme, authority, path, options.collect()))
}

fn mongodb(text: &str) -> Result<MongodbStore, String> {
    const FORM: &str = "write mongodb://host1,host2,host3/database";
    let (scheme, authority, database, options) = cut(text).ok_or(FORM)?;
    if authority.is_empty() || database.is_empty() || database.contains(['/', '@']) {
        let detail = "the database is missing, or a / ? or @ in the password is not written as %2F %3F %40";
        return Err(format!("{detail}; {FORM}"));
    }
    let mut password_file = None;
    let mut kept = Vec::new();
    for (name, value) in options {
        match name {
            "passwordFile" => password_file = Some(PathBuf::from(decoded(value)?)),
            "w" | "j" | "journal" | "readPreference" | "readConcernLevel" | "directConnection" => {
                return Err(format!(
                    "the option {name} is not for you to set: the store's promises rest on it"
                ));
            }
            _ => kept.push(format!("{name}={value}")),
        }
    }
    let options = if kept.is_empty() {
        String::new()
    } else {
        format!("?{}", kept.join("&"))
    };
    Ok(MongodbStore {
        connection: format!("{scheme}://{authority}/{database}{options}"),
        database: decoded(database)?,
        password_file,
    })
}

fn s3(text: &str) -> Result<S3Store, String> {
    const FORM: &str = "write s3://bucket/prefix?region=…&endpoint=…";
    let (_, authority, path, options) = cut(text).ok_or(FORM)?;
    let (key, bucket) = match authority.rsplit_once('@') {
        Some((key, bucket)) => (Some(key), bucket),
        None => (None, authority),
    };
    if !is_name(bucket) {
        let detail = "the bucket is missing, or a / ? or @ in the secret is not written as %2F %3F %40";
        return Err(format!("{detail}; {FORM}"));
    }
    let mut store = S3Store {
        bucket: bucket.to_owned(),
        prefix: prefix(path)?,
        ..S3Store::default()
    };
    if let Some(key) = key {
        let (id, secret) = key
            .split_once(':')
            .ok_or("before the @ goes KEYID:SECRET; better leave it out and use the environment or credentialsFile")?;
        store.key = Some((decoded(id)?, decoded(secret)?));
    }
    for (name, value) in options {
        let value = decoded(value)?;
        match (name, value.as_str()) {
            ("region", _) => store.region = Some(value),
            ("endpoint", _) => store.endpoint = Some(endpoint(&value)?),
            ("pathStyle", "true") => store.path_style = Some(true),
            ("pathStyle", "false") => store.path_style = Some(false),
            ("caFile", _) => store.ca_file = Some(value.into()),
            ("credentialsFile", _) => store.credentials_file = Some(value.into()),
            ("profile", _) => store.profile = Some(value),
            ("pathStyle", _) => return Err("pathStyle is true or false".to_owned()),
            ("conditions", _) => store.conditions = conditions(&value)?,
            _ => {
                return Err(format!(
                    "unknown option {name:?}; known are region, endpoint, pathStyle, caFile, credentialsFile, profile, \
                     conditions"
                ));
            }
        }
    }
    Ok(store)
}

fn google(text: &str) -> Result<GoogleStore, String> {
    const FORM: &str = "write gs://bucket/prefix?credentialsFile=…";
    let (_, bucket, path, options) = cut(text).ok_or(FORM)?;
    if !is_name(bucket) {
        return Err(format!("the bucket is missing; {FORM}"));
    }
    let mut store = GoogleStore {
        bucket: bucket.to_owned(),
        prefix: prefix(path)?,
        ..GoogleStore::default()
    };
    for (name, value) in options {
        let value = decoded(value)?;
        match name {
            "credentialsFile" => store.credentials_file = Some(value.into()),
            "endpoint" => store.endpoint = Some(endpoint(&value)?),
            "caFile" => store.ca_file = Some(value.into()),
            "conditions" => store.conditions = conditions(&value)?,
            _ => {
                return Err(format!(
                    "unknown option {name:?}; known are credentialsFile, endpoint, caFile, conditions"
                ));
            }
        }
    }
    Ok(store)
}

fn azure(text: &str) -> Result<AzureStore, String> {
    const FORM: &str = "write az://container/prefix?account=…&keyFile=…";
    let (_, container, path, options) = cut(text).ok_or(FORM)?;
    if !is_name(container) {
        return Err(format!("the container is missing; {FORM}"));
    }
    let mut store = AzureStore {
        container: container.to_owned(),
        prefix: prefix(path)?,
        ..AzureStore::default()
    };
    for (name, value) in options {
        let value = decoded(value)?;
        match name {
            "account" => store.account = Some(value),
            "keyFile" => store.key_file = Some(value.into()),
            "endpoint" => store.endpoint = Some(endpoint(&value)?),
            "caFile" => store.ca_file = Some(value.into()),
            "conditions" => store.conditions = conditions(&value)?,
            _ => {
                return Err(format!(
                    "unknown option {name:?}; known are account, keyFile, endpoint, caFile, conditions"
                ));
            }
        }
    }
    Ok(store)
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.chars().all(fits)
}

fn prefix(path: &str) -> Result<String, String> {
    let prefix = path.trim_matches('/');
    match prefix.is_empty() || prefix.split('/').all(is_name) {
        true => Ok(prefix.to_owned()),
        false => Err("the prefix may hold A-Z a-z 0-9 . _ - and / between its parts only".to_owned()),
    }
}

fn endpoint(value: &str) -> Result<String, String> {
    match value.starts_with("http://") || value.starts_with("https://") {
        true => Ok(value.trim_end_matches('/').to_owned()),
        false => Err("the endpoint must begin with http:// or https://".to_owned()),
    }
}

fn conditions(value: &str) -> Result<Conditions, String> {
    match value {
        "required" => Ok(Conditions::Required),
        "warn" => Ok(Conditions::Warn),
        _ => Err("conditions is required or warn".to_owned()),
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    const FAULT: &str = "a % is not followed by two hexadecimal digits; write a % itself as %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return Err(FAULT.to_owned());
        };
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (high, low) = (digit(high).ok_or(FAULT)?, digit(low).ok_or(FAULT)?);
        bytes.push((high * 16 + low) as u8);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8 once the % are undone".to_owned())
}

fn shown(f: &mut fmt::Formatter<'_>, scheme: &str, bucket: &str, prefix: &str) -> fmt::Result {
    let slash = if prefix.is_empty() { "" } else { "/" };
    write!(f, "{scheme}://{bucket}{slash}{prefix}")
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUri::File(path) => write!(f, "file:{}", path.display()),
            StoreUri::Mongodb(store) => f.write_str(&redact::uri(&store.connection)),
            StoreUri::S3(store) => shown(f, "s3", &store.bucket, &store.prefix),
            StoreUri::Google(store) => shown(f, "gs", &store.bucket, &store.prefix),
            StoreUri::Azure(store) => shown(f, "az", &store.container, &store.prefix),
        }
    }
}

impl fmt::Debug for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read() {
        for (text, path) in [("file:/a/b", "/a/b"), ("file:///a", "/a"), ("file:rel", "rel")] {
            assert_eq!(text.parse(), Ok(StoreUri::File(path.into())), "{text}");
        }
    }

    #[test]
    fn a_database_is_named_and_our_options_are_taken_out() {
        let uri = "mongodb://u@h1:1,h2/blocks?tls=true&passwordFile=%2Fetc%2Fpw&authSource=admin".parse();
        let Ok(StoreUri::Mongodb(store)) = uri else {
            panic!("{uri:?}")
        };
        assert_eq!(store.connection, "mongodb://u@h1:1,h2/blocks?tls=true&authSource=admin");
        assert_eq!(store.database, "blocks");
        assert_eq!(store.password_file, Some("/etc/pw".into()));
    }

    #[test]
    fn a_bucket_has_its_options() {
        let text = "s3://ID:se%2Fcret@backups/a/b/?region=eu-1&endpoint=http://h:9000/&pathStyle=true&caFile=/ca.pem\
                    &credentialsFile=/c&profile=p&conditions=warn";
        let due = S3Store {
            bucket: "backups".into(),
            prefix: "a/b".into(),
            key: Some(("ID".into(), "se/cret".into())),
            region: Some("eu-1".into()),
            endpoint: Some("http://h:9000".into()),
            path_style: Some(true),
            ca_file: Some("/ca.pem".into()),
            credentials_file: Some("/c".into()),
            profile: Some("p".into()),
            conditions: Conditions::Warn,
        };
        assert_eq!(text.parse(), Ok(StoreUri::S3(due)));
    }

    #[test]
    fn buckets_and_containers_of_other_services_have_theirs() {
        let google = GoogleStore {
            bucket: "backups".into(),
            prefix: "a".into(),
            credentials_file: Some("/c.json".into()),
            endpoint: Some("http://h:1".into()),
            ca_file: Some("/ca.pem".into()),
            conditions: Conditions::Required,
        };
        let text = "gs://backups/a?credentialsFile=/c.json&endpoint=http://h:1&caFile=/ca.pem&conditions=required";
        assert_eq!(text.parse(), Ok(StoreUri::Google(google)));
        let azure = AzureStore {
            container: "backups".into(),
            account: Some("corp".into()),
            key_file: Some("/k".into()),
            conditions: Conditions::Warn,
            ..AzureStore::default()
        };
        let text = "az://backups?account=corp&keyFile=/k&conditions=warn";
        assert_eq!(text.parse(), Ok(StoreUri::Azure(azure)));
    }

    #[test]
    fn what_fits_no_store_is_refused_with_what_would() {
        for (text, cure) in [
            ("", "write file:"),
            ("/a", "write file:"),
            ("http://x", "write file:"),
            ("file:", "the path is missing"),
            ("mongodb://h", "the database is missing"),
            ("mongodb://u:a/b@h/db", "%2F"),
            ("mongodb://h/db?w=1", "w is not for you"),
            ("s3://", "the bucket is missing"),
            ("s3://b?colour=red", "unknown option \"colour\""),
            ("s3://b?endpoint=h:9000", "must begin with http"),
            ("s3://b/a//b", "the prefix may hold"),
            ("s3://id@b", "KEYID:SECRET"),
            ("s3://b?region=%2", "%25"),
            ("gs://", "the bucket is missing"),
            ("gs://b?region=x", "unknown option \"region\""),
            ("az:///p", "the container is missing"),
            ("az://c?key=secret", "known are account, keyFile"),
        ] {
            let refused = text.parse::<StoreUri>().unwrap_err();
            assert!(refused.contains(cure), "{text}: {refused}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        for (text, shown) in [
            ("s3://ID:secret@b/p?credentialsFile=/secret", "s3://b/p"),
            ("s3://b", "s3://b"),
            ("gs://b/p?credentialsFile=/secret", "gs://b/p"),
            ("az://c?keyFile=/secret", "az://c"),
            (
                "mongodb://u:secret@h1,h2/db?tlsCertificateKeyFilePassword=secret",
                "mongodb://***@h1,h2/db",
            ),
            ("file:/a", "file:/a"),
        ] {
            let uri: StoreUri = text.parse().unwrap();
            assert_eq!(uri.to_string(), shown);
            assert_eq!(format!("{uri:?}"), shown);
        }
    }
}
