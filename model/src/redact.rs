//! Connection strings without their secrets. When in doubt, more is hidden.

/// `mongodb://user:password@host/db?options` as `mongodb://***@host/db`. Options are left out: some carry secrets.
pub fn uri(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return "***".to_owned();
    };
    let shown = match (rest.rfind('@'), rest.find('?')) {
        // The @ may belong to an option or the ? to a password: no telling.
        (Some(at), Some(question)) if question < at => "***".to_owned(),
        (Some(at), _) => format!("***@{}", without_options(&rest[at + 1..])),
        (None, _) => without_options(rest).to_owned(),
    };
    format!("{scheme}://{shown}")
}

/// Text without the secrets of connection strings in it.
pub fn text(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | ';');
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = ["mongodb://", "mongodb+srv://", "http://", "https://"]
        .iter()
        .filter_map(|s| rest.find(s))
        .min()
    {
        out.push_str(&rest[..at]);
        let found = &rest[at..];
        let end = found.find(is_end).unwrap_or(found.len());
        out.push_str(&uri(&found[..end]));
        rest = &found[end..];
    }
    out + rest
}

/// The hosts of a connection string, for a user to type; empty when they cannot be told for sure.
pub fn hosts(text: &str) -> String {
    let shown = uri(text);
    let after = shown.split_once("://").map_or("", |(_, rest)| rest);
    let hosts = after.strip_prefix("***@").unwrap_or(after);
    let hosts = hosts.split('/').next().unwrap_or_default();
    if hosts == "***" {
        String::new()
    } else {
        hosts.to_owned()
    }
}

/// Options that say how to connect and carry no secret, in lower case.
const OPEN_OPTIONS: [&str; 22] = [
    "appname",
    "authmechanism",
    "authsource",
    "compressors",
    "connecttimeoutms",
    "directconnection",
    "loadbalanced",
    "maxpoolsize",
    "minpoolsize",
    "readconcernlevel",
    "readpreference",
    "replicaset",
    "retryreads",
    "serverselectiontimeoutms",
    "sockettimeoutms",
    "srvservicename",
    "ssl",
    "tls",
    "tlsallowinvalidcertificates",
    "tlscafile",
    "tlscertificatekeyfile",
    "tlsinsecure",
];

/// What of a connection string may rest where others might read it: all of it when nothing in it is secret; else what
/// [`uri`] shows, marked so that [`is_withheld`] tells.
pub fn at_rest(text: &str) -> String {
    let shown = uri(text);
    let (plain, options) = text.split_once('?').unwrap_or((text, ""));
    let is_open = |option: &str| {
        let name = option.split('=').next().unwrap_or_default().to_lowercase();
        OPEN_OPTIONS.contains(&name.as_str())
    };
    let open = options.split('&').filter(|option| !option.is_empty()).all(is_open);
    if open && !text.contains('@') && shown == plain {
        return text.to_owned();
    }
    match shown.split_once("://") {
        Some((scheme, rest)) if !rest.starts_with("***") => format!("{scheme}://***@{rest}"),
        _ => shown,
    }
}

/// Whether this is what is left of a connection string after [`at_rest`] took secrets out of it: nobody can connect with it.
pub fn is_withheld(text: &str) -> bool {
    text.split_once("://").map_or(text, |(_, rest)| rest).starts_with("***")
}

fn without_options(text: &str) -> &str {
    text.split_once('?').map_or(text, |(kept, _)| kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_without_the_secrets_in_it() {
        for (said, shown) in [
            ("no address here; really", "no address here; really"),
            (
                "cannot reach mongodb://u:p@h/d?x=secret; retry",
                "cannot reach mongodb://***@h/d; retry",
            ),
            (
                "a 'mongodb+srv://u:p@h' and http://t@x/y?k=1",
                "a 'mongodb+srv://***@h' and http://***@x/y",
            ),
        ] {
            assert_eq!(text(said), shown);
        }
    }

    #[test]
    fn no_secret_of_a_connection_string_is_shown() {
        for (text, shown) in [
            ("mongodb://h:27017", "mongodb://h:27017"),
            ("mongodb://u:secret@h1,h2/db", "mongodb://***@h1,h2/db"),
            ("mongodb://u:s%40secret@h/?authSource=admin", "mongodb://***@h/"),
            ("mongodb://u:p/secret@h/db", "mongodb://***@h/db"),
            ("mongodb://u:p@secret@h/db", "mongodb://***@h/db"),
            ("mongodb://u:p?secret@h/db", "mongodb://***"),
            ("mongodb://h/db?tlsCertificateKeyFilePassword=secret", "mongodb://h/db"),
            ("mongodb://h/?authMechanismProperties=X:a@secret", "mongodb://***"),
            (
                "mongodb+srv://u:secret@cluster.example",
                "mongodb+srv://***@cluster.example",
            ),
            ("u:secret@h", "***"),
        ] {
            assert_eq!(uri(text), shown, "{text}");
            assert!(!uri(text).contains("secret"));
        }
    }

    #[test]
    fn only_a_connection_string_without_secrets_rests_whole() {
        for (text, rests) in [
            ("mongodb://h:27017", "mongodb://h:27017"),
            (
                "mongodb://h1,h2/?replicaSet=rs0&tls=true",
                "mongodb://h1,h2/?replicaSet=rs0&tls=true",
            ),
            ("mongodb://u:secret@h/?replicaSet=rs0", "mongodb://***@h/"),
            ("mongodb://h/?tlsCertificateKeyFilePassword=secret", "mongodb://***@h/"),
            ("mongodb://h/?unheardOf=secret", "mongodb://***@h/"),
            ("mongodb://u:p?secret@h/", "mongodb://***"),
            ("u:secret@h", "***"),
        ] {
            assert_eq!(at_rest(text), rests, "{text}");
            assert_eq!(is_withheld(rests), rests != text, "{text}");
        }
    }

    #[test]
    fn the_hosts_are_what_a_user_confirms() {
        assert_eq!(hosts("mongodb://u:p@h1:1,h2:2/db?x=y"), "h1:1,h2:2");
        assert_eq!(hosts("mongodb://h"), "h");
        assert_eq!(hosts("mongodb://u:p?q@h"), "");
    }
}
