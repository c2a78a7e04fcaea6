//! Who may do what. An agent's key opens `/agent/v1` only, an administrator's `/api/v1` only.
//!
//! The engine looks keys up by their BLAKE3 hash, so the time a look-up takes tells nothing about the key.

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use headwater_actors::Backup;
use headwater_cluster::KeyRole;

use crate::fault::Fault;

/// The longest key worth hashing.
const KEY_MAX_BYTES: usize = 512;

/// The engine, for the bearer of an agent's key.
pub(crate) fn agent(req: &HttpRequest) -> Result<web::Data<Backup>, Fault> {
    admit(req, KeyRole::Agent)
}

/// The engine, for the bearer of an administrator's key.
pub(crate) fn admin(req: &HttpRequest) -> Result<web::Data<Backup>, Fault> {
    admit(req, KeyRole::Admin)
}

fn admit(req: &HttpRequest, needed: KeyRole) -> Result<web::Data<Backup>, Fault> {
    let given = req
        .headers()
        .get(header::AUTHORIZATION)
        .map(header::HeaderValue::as_bytes);
    let key = bearer(given)?;
    let backup = req.app_data::<web::Data<Backup>>().ok_or_else(Fault::not_wired)?;
    backup.ready()?;
    permit(backup.role_of(key), needed)?;
    Ok(backup.clone())
}

/// The key in an `Authorization` header.
fn bearer(header: Option<&[u8]>) -> Result<&str, Fault> {
    let text = header
        .and_then(|h| std::str::from_utf8(h).ok())
        .ok_or_else(Fault::no_key)?;
    let (scheme, key) = text.split_once(' ').ok_or_else(Fault::no_key)?;
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Err(Fault::no_key());
    }
    if key.len() > KEY_MAX_BYTES {
        Err(Fault::unknown_key())
    } else {
        Ok(key)
    }
}

fn permit(found: Option<KeyRole>, needed: KeyRole) -> Result<(), Fault> {
    match (found, needed) {
        (None, _) => Err(Fault::unknown_key()),
        (Some(KeyRole::Agent), KeyRole::Agent) | (Some(KeyRole::Admin), KeyRole::Admin) => Ok(()),
        (Some(_), KeyRole::Agent) => Err(Fault::other_role("an agent's")),
        (Some(_), KeyRole::Admin) => Err(Fault::other_role("an administrator's")),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;

    use super::*;

    fn status<T>(result: Result<T, Fault>) -> u16 {
        result.err().map_or(200, |fault| fault.status_code().as_u16())
    }

    #[test]
    fn a_key_is_read_from_a_bearer_header_only() {
        assert_eq!(bearer(Some(b"Bearer abc")).unwrap(), "abc");
        assert_eq!(bearer(Some(b"bearer  abc ")).unwrap(), "abc");
        let long = format!("Bearer {}", "x".repeat(KEY_MAX_BYTES + 1));
        for wrong in [
            None,
            Some(&b"abc"[..]),
            Some(b"Bearer"),
            Some(b"Bearer  "),
            Some(b"Basic abc"),
            Some(b"Bearer \xff"),
        ] {
            assert_eq!(status(bearer(wrong)), 401, "{wrong:?}");
        }
        assert_eq!(status(bearer(Some(long.as_bytes()))), 401);
    }

    #[test]
    fn each_role_reaches_its_own_half_only() {
        for (found, needed, expected) in [
            (None, KeyRole::Agent, 401),
            (None, KeyRole::Admin, 401),
            (Some(KeyRole::Agent), KeyRole::Agent, 200),
            (Some(KeyRole::Agent), KeyRole::Admin, 403),
            (Some(KeyRole::Admin), KeyRole::Agent, 403),
            (Some(KeyRole::Admin), KeyRole::Admin, 200),
        ] {
            assert_eq!(status(permit(found, needed)), expected, "{found:?} {needed:?}");
        }
    }
}
