//! Who did what: noted before it is done, with its outcome afterwards, in the control state and in the log (target `audit`).

use std::fmt::Display;

use actix_web::HttpMessage;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use headwater_actors::access::Bearer;
use headwater_actors::auditing::Became;
use headwater_model::DeploymentName;

use crate::access;
use crate::fault::Fault;

/// What a handler knows about its deed that the path does not tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    pub(crate) deployment: Option<DeploymentName>,
    pub(crate) restore: Option<u64>,
    /// What it was about.
    pub(crate) about: Option<String>,
}

/// Leaves a note for the log.
pub(crate) fn note(req: &actix_web::HttpRequest, note: Note) {
    req.extensions_mut().insert(note);
}

/// Has every change and every restore noted. What cannot be noted is not done.
pub(crate) async fn deeds<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let Some((place, entered)) = access::known(request.request()).filter(|(place, _)| place.is_audited()) else {
        return next.call(request).await;
    };
    let path = request.path().to_owned();
    let deployment = deployment_in(&path);
    let begun = entered
        .note_deed(&entered.bearer, place.what, &path, deployment.clone())
        .await;
    let begun = begun.map_err(Fault::from)?;
    let answer = next.call(request).await;
    let (noted, outcome) = match &answer {
        Ok(response) => {
            let noted = response
                .request()
                .extensions()
                .get::<Note>()
                .cloned()
                .unwrap_or_default();
            let outcome = match response.response().error() {
                Some(error) => format!("refused: {error}"),
                None => done(noted.about.as_deref(), noted.restore),
            };
            (noted, outcome)
        }
        Err(error) => (Note::default(), format!("refused: {error}")),
    };
    let deployment = noted.deployment.or(deployment);
    tell(&entered.bearer, place.what, &path, deployment.as_ref(), &outcome);
    let became = Became {
        deployment,
        restore: noted.restore,
        outcome,
    };
    entered.note_outcome(begun, became).await;
    answer
}

/// Tells the log of somebody who may not do what they asked for. Not in the control state: whoever has any key could wash
/// everything else out of it.
pub(crate) fn turned_away(bearer: &Bearer, what: &str, path: &str, fault: &Fault) {
    let (who, key) = (bearer.name.as_str(), bearer.id.as_str());
    tracing::warn!(target: "audit", who, key, what, path, "turned away: {fault}");
}

fn tell(bearer: &Bearer, what: &str, path: &str, deployment: Option<&impl Display>, outcome: &str) {
    let (who, key) = (bearer.name.as_str(), bearer.id.as_str());
    let deployment = deployment.map(tracing::field::display);
    tracing::info!(target: "audit", who, key, what, path, deployment, outcome);
}

fn done(about: Option<&str>, restore: Option<u64>) -> String {
    match (about, restore) {
        (Some(about), _) => format!("done: {about}"),
        (None, Some(restore)) => format!("restore {restore} begun"),
        (None, None) => "done".to_owned(),
    }
}

/// The deployment that a path names.
fn deployment_in(path: &str) -> Option<DeploymentName> {
    let rest = path.strip_prefix("/api/v1/deployments/")?;
    DeploymentName::new(rest.split('/').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_name_a_deployment() {
        let named = |path| deployment_in(path).map(|name| name.to_string());
        assert_eq!(named("/api/v1/deployments/shop/restores").as_deref(), Some("shop"));
        assert_eq!(named("/api/v1/deployments/shop").as_deref(), Some("shop"));
        for none in ["/api/v1/deployments", "/api/v1/deployments/", "/api/v1/alerts/ack"] {
            assert_eq!(named(none), None, "{none}");
        }
    }

    #[test]
    fn an_outcome_says_what_it_was_about() {
        assert_eq!(done(None, None), "done");
        assert_eq!(done(Some("key alice"), None), "done: key alice");
        assert_eq!(done(None, Some(7)), "restore 7 begun");
    }
}
