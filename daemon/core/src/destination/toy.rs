//! A second kind of backend, for tests: takes OTLP at whatever address it is given, with a bearer token.

use http::{HeaderMap, HeaderValue, header};
use proto::env::{Of, Role};

use super::{
    Backend, Destination, Endpoint, Kind, Manners, Words,
    address::{base_url, unquoted},
};
use crate::{
    secret::{Secret, Secrets},
    vars::{Env, Refused},
};

/// The variable that has its token.
const TOKEN: &str = "CC_LANGFUSE_TOY_TOKEN";

/// Any receiver.
pub struct Toy;

impl Backend for Toy {
    fn of(&self) -> Of {
        Of::Toy
    }

    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused> {
        let value = |role| env.decided(Of::Toy, role).map(|(_, value)| unquoted(value));
        let Some(address) = value(Role::Address) else { return Ok(None) };
        let address = base_url(address).ok_or(Refused::BaseUrl)?;
        let secrets = value(Role::Secret).map(|token| (TOKEN, Secret::new(token))).into_iter().collect();
        let account = value(Role::Account).unwrap_or_default().to_owned();
        Ok(Some((Destination { kind: Kind::Toy, address, account }, secrets)))
    }

    fn endpoint(&self, to: &Destination, secrets: &Secrets) -> Result<Endpoint, String> {
        let token = secrets.get(TOKEN).ok_or("there is no token")?;
        let headers = HeaderMap::from_iter([
            (header::AUTHORIZATION, token.bearer()),
            (header::ACCEPT, HeaderValue::from_static("application/x-protobuf")),
        ]);
        Ok(Endpoint { url: format!("{}/v1/traces", to.address), headers })
    }

    fn scope(&self) -> &'static str {
        "toy"
    }

    fn manners(&self) -> Manners {
        Manners { updates_roots: true, uploads_media: false }
    }

    fn words(&self) -> Words {
        Words { kind: "toy", secret: "token" }
    }
}
