//! Credentials from the usual places. Nearest wins: the URI, the file or profile it names, the environment
//! (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`), `~/.aws/credentials`; else the crate asks the machine it runs on
//! (web identity, container, instance).

use std::path::PathBuf;

use headwater_model::store_uri::S3Store;

/// A key.
pub struct Key {
    /// Its id.
    pub id: String,
    /// The secret.
    pub secret: String,
    /// A session's token.
    pub token: Option<String>,
}

/// The key to use; `None` when the crate shall look for itself.
pub fn find(place: &S3Store) -> Result<Option<Key>, String> {
    if let Some((id, secret)) = place.key.clone() {
        return Ok(Some(Key {
            id,
            secret,
            token: None,
        }));
    }
    let told = place.credentials_file.is_some() || place.profile.is_some();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if !told && variable("AWS_ACCESS_KEY_ID").is_some() {
        return Ok(None);
    }
    let usual = || {
        let set = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        set.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".aws/credentials")))
    };
    let Some(file) = place.credentials_file.clone().or_else(usual) else {
        return Ok(None);
    };
    let profile = place.profile.clone().or_else(|| variable("AWS_PROFILE"));
    let profile = profile.unwrap_or_else(|| "default".to_owned());
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(_) if !told => return Ok(None),
        Err(error) => return Err(format!("credentials file {}: {error}", file.display())),
    };
    match read(&text, &profile) {
        None if told => Err(format!(
            "credentials file {} has no section [{profile}] with aws_access_key_id and aws_secret_access_key",
            file.display()
        )),
        found => Ok(found),
    }
}

/// The key in a section of such a file.
fn read(text: &str, profile: &str) -> Option<Key> {
    let mut within = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            within = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| within) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(Key {
        id: id?,
        secret: secret?,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_a_credentials_file_is_read() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=s=/+\n\n[ other ]\n\
                    aws_access_key_id=B\naws_secret_access_key=t\naws_session_token=u\nregion=x\n[half]\naws_access_key_id=C\n";
        let all = |profile| read(text, profile).map(|key| (key.id, key.secret, key.token));
        assert_eq!(all("default"), Some(("A".into(), "s=/+".into(), None)));
        assert_eq!(all("other"), Some(("B".into(), "t".into(), Some("u".into()))));
        assert_eq!(all("half"), None);
        assert_eq!(all("none"), None);
    }
}
