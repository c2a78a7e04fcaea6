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

fn without_options(text: &str) -> &str {
    text.split_once('?').map_or(text, |(kept, _)| kept)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_hosts_are_what_a_user_confirms() {
        assert_eq!(hosts("mongodb://u:p@h1:1,h2:2/db?x=y"), "h1:1,h2:2");
        assert_eq!(hosts("mongodb://h"), "h");
        assert_eq!(hosts("mongodb://u:p?q@h"), "");
    }
}
