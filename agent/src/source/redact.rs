//! Keeps credentials out of words that people will read.

/// Replaces the secrets of one connection string wherever they turn up.
#[derive(Clone)]
pub struct Redactor {
    secrets: Vec<String>,
}

const HIDDEN: &str = "***";

impl Redactor {
    /// Knows the secrets of this connection string: what stands between `://` and the last `@` before the hosts end.
    pub fn of_uri(uri: &str) -> Self {
        let mut secrets = Vec::new();
        if let Some(login) = login(uri) {
            if let Some((_, password)) = login.split_once(':') {
                secrets.push(password.to_owned());
                secrets.push(percent_decoded(password));
            }
            secrets.push(login.to_owned());
        }
        for value in secret_options(uri) {
            secrets.push(value.to_owned());
            secrets.push(percent_decoded(value));
        }
        secrets.push(uri.to_owned());
        // The longest first, or a part of a secret would be left standing.
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Redactor { secrets }
    }

    /// The text without the secrets.
    pub fn clean(&self, text: &str) -> String {
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }
}

fn login(uri: &str) -> Option<&str> {
    let rest = uri.split_once("://")?.1;
    let hosts_end = rest.find(['/', '?']).unwrap_or(rest.len());
    // A password with a bare slash is against the rules, but its owner deserves no leak for it.
    let at = rest[..hosts_end].rfind('@').or_else(|| rest.rfind('@'))?;
    Some(&rest[..at])
}

/// Values of options that hold secrets: passwords of key files, properties of an authentication mechanism.
fn secret_options(uri: &str) -> impl Iterator<Item = &str> {
    let options = uri.split_once('?').map_or("", |(_, options)| options);
    options.split('&').filter_map(|option| {
        let (name, value) = option.split_once('=')?;
        let name = name.to_lowercase();
        (name.contains("password") || name.contains("properties")).then_some(value)
    })
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let pair = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_the_password_and_no_connection_string_survives() {
        let uri = "mongodb://ann:p%40ss/word@h1:1,h2:2/?replicaSet=rs";
        let redactor = Redactor::of_uri(uri);
        let told = format!("cannot use {uri}: login ann:p%40ss/word with p@ss/word was wrong");
        let clean = redactor.clean(&told);
        assert!(!clean.contains("p%40ss") && !clean.contains("p@ss"), "{clean}");
    }

    #[test]
    fn secrets_among_the_options_are_hidden_too() {
        let uri =
            "mongodb://h/?tlsCertificateKeyFilePassword=s3%21&authMechanismProperties=AWS_SESSION_TOKEN:tok&ssl=true";
        let clean = Redactor::of_uri(uri).clean("key file with s3! or s3%21 and AWS_SESSION_TOKEN:tok over ssl=true");
        assert_eq!(clean, "key file with *** or *** and *** over ssl=true");
    }

    #[test]
    fn words_without_secrets_stay_as_they_are() {
        let redactor = Redactor::of_uri("mongodb://h1:1/?replicaSet=rs");
        assert_eq!(
            redactor.clean("connection refused by h1:1"),
            "connection refused by h1:1"
        );
    }
}
