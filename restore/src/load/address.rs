//! Reads the connection string of a target. What the driver says of one that it does not understand cites pieces of it,
//! which may be pieces of a password.

use headwater_protocol::redact;
use mongodb::error::Error;
use mongodb::options::ClientOptions;

const MALFORMED: &str = "it is not of the form mongodb://USER:PASSWORD@HOST:PORT/?OPTIONS; write % as %25, / as %2F, \
                         ? as %3F, : as %3A, @ as %40, # as %23 in user and password, and @ as %40 in options";

/// Reads a connection string; `Err` says without secrets what is wrong with it.
pub(super) async fn read(uri: &str) -> Result<ClientOptions, String> {
    if is_torn(uri) {
        return Err(MALFORMED.to_owned());
    }
    match ClientOptions::parse(uri).await {
        Ok(options) => Ok(options),
        Err(_) => Err(misread(uri).await),
    }
}

/// Whether the driver would take what follows a `?` in the password for options, and half of the password for the host.
fn is_torn(uri: &str) -> bool {
    matches!((uri.find('?'), uri.rfind('@')), (Some(question), Some(at)) if question < at)
}

/// Asks the driver once more, without the login: its words cannot hold what it was not given.
async fn misread(uri: &str) -> String {
    let without_login = match (uri.split_once("://"), uri.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://{}", &uri[at + 1..]),
        (Some(_), None) => uri.to_owned(),
        (None, _) => return MALFORMED.to_owned(),
    };
    match ClientOptions::parse(&without_login).await {
        Ok(_) => MALFORMED.to_owned(),
        Err(e) => words(&without_login, &e),
    }
}

/// The driver's words, where nothing in the string is secret.
pub(super) fn words(uri: &str, error: &Error) -> String {
    if redact::at_rest(uri) == uri {
        error.kind.to_string()
    } else {
        "check its hosts and options".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Target;

    async fn told(uri: &str) -> String {
        let target = Target::new(uri, 1).await;
        target.err().map(|fault| fault.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn no_piece_of_a_password_is_told_whatever_signs_it_holds() {
        for password in [
            "Hush?99secret",
            "Hush/99secret",
            "Hush@99secret",
            "Hush:99secret",
            "Hush%99secret",
            "Hush%zzsecret",
            "Hush,99secret",
            "Hush#99secret",
            "Hu[sh]99secret",
            "?Hush=99secret",
            "Hush?w=99secret",
            "/Hush?99@secret",
            "Hush&99=secret?@:,",
        ] {
            for uri in [
                format!("mongodb://admin:{password}@h/"),
                format!("mongodb://admin:{password}@h:1/db?unheardOf=1"),
                format!("mongodb+srv://admin:{password}@h:1/"),
                format!("admin:{password}@h"),
            ] {
                let told = told(&uri).await.to_lowercase();
                let pieces = ["hush", "99", "secret", "zz", "sh]"];
                assert!(!pieces.iter().any(|piece| told.contains(piece)), "{uri}: {told}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_wrong_beside_the_login_is_told_in_the_drivers_words() {
        for (uri, words) in [
            ("mongodb://ann:p%40ss@h:port/", "port must be an integer"),
            ("mongodb://h/?replicaset", "not a 'key=value' pair"),
            ("mongodb://ann:p@ss@h/", "@ as %40"),
            ("mongodb://ann:p?ss@h/", "? as %3F"),
            (
                "mongodb://ann:p@h/?tlsCertificateKeyFilePassword=hush&ssl",
                "check its hosts and options",
            ),
        ] {
            let told = told(uri).await;
            assert!(told.contains(words) && !told.contains("hush"), "{uri}: {told}");
        }
        assert_eq!(told("mongodb://ann:p%40ss%3F@h:1/?appName=x").await, "");
    }
}
