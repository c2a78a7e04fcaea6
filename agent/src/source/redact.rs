//! Keeps credentials out of words that people will read.

/// Replaces the secrets of one connection string wherever they turn up.
#[derive(Clone)]
pub struct Redactor {
    /// Hidden wherever they stand.
    secrets: Vec<String>,
    /// Hidden where they stand as words, in small letters.
    pieces: Vec<String>,
}

const HIDDEN: &str = "***";
/// Where the driver cuts a connection string. With one of these in its password it takes pieces of that for something
/// else, and cites them.
const CUTS: [char; 11] = [':', '/', '?', '#', '[', ']', '@', ',', '&', '=', '%'];

impl Redactor {
    /// Knows the secrets of this connection string: what stands between `://` and the last `@`.
    pub fn of_uri(uri: &str) -> Self {
        let (mut secrets, mut pieces) = (Vec::new(), Vec::new());
        if let Some(login) = login(uri) {
            if let Some((_, password)) = login.split_once(':') {
                secrets.push(password.to_owned());
                secrets.push(percent_decoded(password));
                pieces.extend(cut(password));
                pieces.extend(cut(&percent_decoded(password)));
                // It cites a single character of what it takes for a database.
                let signs = password.chars().filter(|c| !c.is_alphanumeric());
                secrets.extend(signs.map(|c| format!("database name: {c}")));
            }
            secrets.push(login.to_owned());
        }
        for value in secret_options(uri) {
            secrets.push(value.to_owned());
            secrets.push(percent_decoded(value));
        }
        secrets.push(uri.to_owned());
        Redactor {
            secrets: longest_first(secrets),
            pieces: longest_first(pieces),
        }
    }

    /// The text without the secrets.
    pub fn clean(&self, text: &str) -> String {
        let text = self
            .secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
        self.pieces.iter().fold(text, |text, piece| without_word(&text, piece))
    }
}

/// The longest first, or a part of a secret would be left standing.
fn longest_first(mut secrets: Vec<String>) -> Vec<String> {
    secrets.retain(|secret| !secret.is_empty());
    secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    secrets.dedup();
    secrets
}

/// The pieces of a password that the driver may cite, in small letters: also decoded one by one.
fn cut(password: &str) -> Vec<String> {
    let without_percent = |c: char| c != '%' && CUTS.contains(&c);
    let pieces = password.split(CUTS).map(str::to_owned);
    let decoded = password.split(without_percent).map(percent_decoded);
    pieces.chain(decoded).map(|piece| piece.to_ascii_lowercase()).collect()
}

/// The text without a word, in whatever letters it is written.
fn without_word(text: &str, word: &str) -> String {
    let small = text.to_ascii_lowercase();
    let is_in_a_word =
        |a: Option<char>, b: Option<char>| a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric);
    let (mut out, mut kept) = (String::new(), 0);
    for (at, found) in small.match_indices(word) {
        let end = at + found.len();
        let before = text[..at].chars().next_back();
        let after = text[end..].chars().next();
        if !is_in_a_word(before, word.chars().next()) && !is_in_a_word(word.chars().next_back(), after) {
            out.push_str(&text[kept..at]);
            out.push_str(HIDDEN);
            kept = end;
        }
    }
    out + &text[kept..]
}

fn login(uri: &str) -> Option<&str> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    // A password with a bare slash is against the rules, but its owner deserves no leak for it.
    Some(&rest[..rest.rfind('@')?])
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

    #[tokio::test]
    async fn no_piece_of_a_password_survives_whatever_signs_it_holds() {
        for password in [
            "Hush?99secret",
            "Hush/99secret",
            "Hush@99secret",
            "Hush:99secret",
            "Hush%99secret",
            "Hush%zzsecret",
            "Hush,99secret",
            "H%75sh?99secret",
            "Hush@h/99?secret=1",
            "Hush@o/s$99?secret",
            "/Hush?99@secret",
            "Hush&99=secret?@:,",
        ] {
            for uri in [
                format!("mongodb://admin:{password}@h/"),
                format!("mongodb://admin:{password}@h:x/db?unheardOf=1"),
                format!("admin:{password}@h"),
            ] {
                let Err(error) = mongodb::options::ClientOptions::parse(&uri).await else {
                    continue;
                };
                let redactor = Redactor::of_uri(&uri);
                for told in [error.kind.to_string(), error.to_string()] {
                    let clean = redactor.clean(&told).to_lowercase();
                    let pieces = ["hush", "h%75sh", "99", "secret", "zz", "$"];
                    assert!(!pieces.iter().any(|piece| clean.contains(piece)), "{uri}: {clean}");
                }
            }
        }
    }

    #[test]
    fn pieces_are_hidden_as_words_only() {
        let redactor = Redactor::of_uri("mongodb://admin:a?on@h/");
        let clean = redactor.clean("not authorized on admin: connection to A:1 failed");
        assert_eq!(clean, "not authorized *** admin: connection to ***:1 failed");
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
