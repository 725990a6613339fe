//! MLflow: a tracking server through its OTLP endpoint, or its file store, written directly. The variables are MLflow's own, so
//! a project that MLflow's integration traced continues in the same experiment.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use proto::env::{MLFLOW_CLIENT_CERT, MLFLOW_INSECURE_TLS, MLFLOW_SERVER_CERT, Of, Role};
use serde::Deserialize;

use super::{
    Backend, Connect, Destination, Endpoint, Folder, Kind, Manners, MediaAs, Words,
    address::unquoted,
    deletion::Deletion,
    mlflow::filestore::Which,
    own,
    pages::Pages,
    scoring::ScoreApi,
    upload::MediaApi,
    wire::{Value, WireSpan},
};
use crate::{
    observation::{Observation, TraceFacts},
    secret::{Secret, Secrets, Tls},
    settings::rival::Rival,
    vars::{Env, Refused},
    verdict::{Answer, Verdict},
};

mod assessments;
mod attachments;
mod credentials;
pub mod encode;
pub mod filestore;
mod pages;
mod server;
mod uri;

use uri::Place;

/// The variables for the credentials.
const USERNAME: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";

const EXPERIMENT_ID: &str = "MLFLOW_EXPERIMENT_ID";
const EXPERIMENT_NAME: &str = "MLFLOW_EXPERIMENT_NAME";
const WORKSPACE: &str = "MLFLOW_WORKSPACE";

/// Variables that ask for an unsupported kind of authentication, and what to do instead.
const UNKNOWN: [(&str, &str); 2] = [
    ("MLFLOW_TRACKING_AUTH", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"),
    (
        "MLFLOW_TRACKING_AWS_SIGV4",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
];

/// Why nothing is sent while MLflow's own integration is active.
const RIVAL: &str = "MLflow's own integration is active too and would send every turn a second time: cc-langfusectl setup --mlflow turns \
                     it off, or `claude plugin disable mlflow-tracing@mlflow-plugins`";

/// The scheme of file store addresses.
const FILES: &str = "file://";

/// The experiment and options of a destination, parsed from its account: `0`, `7,workspace=team`, `name=my experiment`,
/// `unknown=MLFLOW_TRACKING_AUTH,name=x`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    experiment: Which,
    workspace: Option<String>,
    /// A variable that asks for an unsupported kind of authentication.
    unknown: Option<&'static str>,
}

impl Form {
    fn wanted(env: &Env<'_>) -> Self {
        let value = |name| env.get(name).map(unquoted).filter(|value| !value.is_empty());
        let is_set = |value: &str| !["false", "0", "no"].iter().any(|off| value.eq_ignore_ascii_case(off));
        Self {
            experiment: match (value(EXPERIMENT_ID), value(EXPERIMENT_NAME)) {
                (Some(id), _) => Which::Id(id.replace(',', "")),
                (None, Some(name)) => Which::Name(name.to_owned()),
                (None, None) => Which::Id("0".to_owned()),
            },
            workspace: value(WORKSPACE).map(|name| name.replace(',', "")),
            unknown: UNKNOWN.iter().map(|(name, _)| *name).find(|name| value(name).is_some_and(is_set)),
        }
    }

    fn of(to: &Destination) -> Self {
        // The name comes last because it may contain commas.
        let (head, name) = match to.account.split_once("name=") {
            Some((head, name)) if head.is_empty() || head.ends_with(',') => (head, Some(name.to_owned())),
            _ => (to.account.as_str(), None),
        };
        let mut form = Self {
            experiment: name.map_or_else(|| Which::Id("0".to_owned()), Which::Name),
            workspace: None,
            unknown: None,
        };
        for part in head.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("workspace", name)) => form.workspace = Some(name.to_owned()),
                Some(("unknown", name)) => {
                    form.unknown = UNKNOWN.iter().map(|(known, _)| *known).find(|known| *known == name)
                }
                Some(_) => {}
                None => form.experiment = Which::Id(part.to_owned()),
            }
        }
        form
    }

    fn account(&self) -> String {
        let (id, name) = match &self.experiment {
            Which::Id(id) => (Some(id.clone()), None),
            Which::Name(name) => (None, Some(format!("name={name}"))),
        };
        let workspace = self.workspace.as_ref().map(|name| format!("workspace={name}"));
        let unknown = self.unknown.map(|name| format!("unknown={name}"));
        [id, workspace, unknown, name].into_iter().flatten().collect::<Vec<_>>().join(",")
    }
}

pub struct Mlflow;

impl Backend for Mlflow {
    fn of(&self) -> Of {
        Of::Mlflow
    }

    fn address(&self, text: &str) -> Option<String> {
        address(uri::read(Some(text), None)?.place)
    }

    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused> {
        let uri = env.decided(Of::Mlflow, Role::Address).map(|(_, uri)| uri);
        if uri.is_none() && !env.enables(Of::Mlflow) {
            return Ok(None);
        }
        let read = uri::read(uri, env.get("CLAUDE_PROJECT_DIR")).ok_or(Refused::TrackingUri)?;
        let form = Form::wanted(env);
        let secret = |name| env.get(name).map(|value| (name, Secret::new(unquoted(value))));
        let mut secrets: Secrets = match (&read.place, read.userinfo) {
            (Place::Files(_) | Place::Other(_), _) => Secrets::default(),
            (Place::Server(_), Some((name, password))) => {
                [(USERNAME, Secret::new(&name)), (PASSWORD, Secret::new(&password))].into_iter().collect()
            }
            (Place::Server(_), None) => [USERNAME, PASSWORD, TOKEN].into_iter().filter_map(secret).collect(),
        };
        if matches!(&read.place, Place::Server(address) if address.starts_with("https")) {
            secrets = secrets.with_tls(tls(env));
        }
        let address = address(read.place).ok_or(Refused::TrackingUri)?;
        Ok(Some((Destination { kind: Kind::Mlflow, address, account: form.account() }, secrets)))
    }

    fn takes_plain_http(&self) -> bool {
        true
    }

    fn needs_secret(&self, _: &Destination) -> bool {
        false
    }

    fn key_file(&self, to: &Destination) -> Option<&'static str> {
        is_server(to).then_some(credentials::FILE)
    }

    fn fill(&self, secrets: Secrets, key_file: &str) -> Secrets {
        credentials::fill(secrets, key_file)
    }

    fn connect(&self, to: &Destination, secrets: &Secrets, answers: &[Response<Bytes>]) -> Connect {
        let form = Form::of(to);
        if let Some(root) = to.address.strip_prefix(FILES) {
            return Connect::Files(Folder { root: root.to_owned(), experiment: form.experiment });
        }
        if !is_server(to) {
            return Connect::Park(uri::remedy(&to.address));
        }
        if let Some((name, remedy)) = form.unknown.and_then(|name| UNKNOWN.iter().find(|(known, _)| *known == name)) {
            return Connect::Park(format!("{name} is set, which is not followed here: {remedy}, and remove it"));
        }
        if let Tls { authorities: Some(_), is_unproven: true, .. } = secrets.tls() {
            return Connect::Park(format!(
                "{MLFLOW_INSECURE_TLS} is set beside {MLFLOW_SERVER_CERT}: the server proves itself by that file, or not at all; \
                 remove one of them"
            ));
        }
        let mut headers = match headers(to, secrets) {
            Ok(headers) => headers,
            Err(why) => return Connect::Park(why),
        };
        let id = match form.experiment {
            Which::Id(id) => id,
            Which::Name(name) => match found(to, &headers, &name, answers) {
                Ok(id) => id,
                Err(next) => return *next,
            },
        };
        match HeaderValue::from_str(&id) {
            Ok(id) => headers.insert(HeaderName::from_static(server::EXPERIMENT), id),
            Err(_) => return Connect::Park(format!("{EXPERIMENT_ID} fits in no header")),
        };
        Connect::Ready(Endpoint { url: format!("{}/v1/traces", to.address), headers })
    }

    fn encode(&self, to: &Destination, observation: &Observation, facts: &TraceFacts) -> WireSpan {
        if is_server(to) || !observation.shows_media() {
            return encode::encode(observation, facts);
        }
        encode::encode(&observation.with_text_for_media(own::media), facts)
    }

    fn rival(&self) -> Option<super::Rival> {
        let is_active =
            |settings: &[String]| Rival::is_active(&Vec::from_iter(settings.iter().map(|text| Rival::of(text))));
        Some(super::Rival { is_active, why: RIVAL })
    }

    fn scope(&self) -> &'static str {
        "cc-langfuse"
    }

    fn verdict(&self, answer: &Answer) -> Option<Verdict> {
        server::verdict(answer)
    }

    fn manners(&self, to: &Destination) -> Manners {
        Manners { media: if is_server(to) { MediaAs::Upload } else { MediaAs::Size }, ..Manners::default() }
    }

    fn media(&self) -> Option<&'static dyn MediaApi> {
        Some(&attachments::Attachments)
    }

    /// Its file store has none that this program writes.
    fn scores(&self, to: &Destination) -> Option<&'static dyn ScoreApi> {
        (!to.address.starts_with(FILES)).then_some(&assessments::Assessments)
    }

    fn pages(&self) -> Option<&'static dyn Pages> {
        Some(&pages::Site)
    }

    fn deletion(&self) -> Option<&'static dyn Deletion> {
        Some(&pages::Site)
    }

    fn trial(&self, name: &str, _: Option<&str>) -> Vec<(Cow<'static, str>, Value)> {
        let text = |key: &'static str, value: String| (Cow::Borrowed(key), Value::Text(value));
        let said =
            |role: &str, text: &str| serde_json::json!({"messages": [{"role": role, "content": text}]}).to_string();
        vec![
            text("mlflow.spanType", "AGENT".to_owned()),
            text("mlflow.spanInputs", said("user", "Does what is sent arrive?")),
            text("mlflow.spanOutputs", said("assistant", "It does.")),
            text("mlflow.traceTag.mlflow.traceName", name.to_owned()),
        ]
    }

    fn words(&self) -> Words {
        Words {
            kind: "mlflow",
            title: "MLflow",
            secret: "token or password",
            address: "MLFLOW_TRACKING_URI",
            credentials: "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; and that this \
                          user may read and write the experiment",
        }
    }
}

/// The TLS settings, as MLflow's own client reads them.
fn tls(env: &Env<'_>) -> Tls {
    let value = |name| env.get(name).map(unquoted).filter(|value| !value.is_empty());
    let path = |name| value(name).map(str::to_owned);
    let is = |word: &str| value(MLFLOW_INSECURE_TLS).is_some_and(|value| value.eq_ignore_ascii_case(word));
    Tls {
        authorities: path(MLFLOW_SERVER_CERT),
        identity: path(MLFLOW_CLIENT_CERT),
        is_unproven: ["true", "1", "yes"].into_iter().any(is),
    }
}

/// True for any server, MLflow's or not; false for files and databases.
fn is_server(to: &Destination) -> bool {
    to.address.starts_with("http")
}

fn address(place: Place) -> Option<String> {
    Some(match place {
        Place::Server(address) | Place::Other(address) => address,
        Place::Files(path) => format!("{FILES}{path}"),
    })
}

/// The headers of every request: credentials and workspace.
///
/// # Errors
/// Which of them does not fit in a header.
fn headers(to: &Destination, secrets: &Secrets) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = authorization(secrets) {
        headers.insert(header::AUTHORIZATION, authorization);
    }
    if let Some(workspace) = Form::of(to).workspace {
        let workspace = HeaderValue::from_str(&workspace).map_err(|_| format!("{WORKSPACE} fits in no header"))?;
        headers.insert("x-mlflow-workspace", workspace);
    }
    Ok(headers)
}

/// Basic authentication with name and password, else a token. A name alone is ignored, as in MLflow's own client.
fn authorization(secrets: &Secrets) -> Option<HeaderValue> {
    match (secrets.get(USERNAME), secrets.get(PASSWORD)) {
        (Some(name), Some(password)) => Some(password.basic_auth_of(name)),
        _ => secrets.get(TOKEN).map(Secret::bearer),
    }
}

/// A server's answer about an experiment.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    experiment: Option<Experiment>,
    /// Set in the answer to a creation.
    experiment_id: Option<String>,
    error_code: Option<String>,
}

#[derive(Deserialize)]
struct Experiment {
    experiment_id: String,
    #[serde(default)]
    lifecycle_stage: String,
    /// A URI.
    #[serde(default)]
    artifact_location: String,
}

/// The id of the experiment `name`, created if it is missing: look it up, create it, and look it up again
/// if another client was faster.
fn found(
    to: &Destination,
    headers: &HeaderMap,
    name: &str,
    answers: &[Response<Bytes>],
) -> Result<String, Box<Connect>> {
    let request = |method: Method, path: String, body: String| {
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = method;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let address = format!("{}/api/2.0/mlflow/experiments/{path}", to.address);
        Box::new(match address.parse() {
            Ok(uri) => {
                *request.uri_mut() = uri;
                Connect::Ask(request)
            }
            Err(error) => Connect::Park(format!("{address} is no address: {error}")),
        })
    };
    let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let ask = || request(Method::GET, format!("get-by-name?experiment_name={encoded}"), String::new());
    let park = |why: String| Err(Box::new(Connect::Park(why)));
    let Some(last) = answers.last() else { return Err(ask()) };
    let said: Said = serde_json::from_slice(last.body()).unwrap_or_default();
    match (last.status(), said.error_code.as_deref(), answers.len()) {
        (status, _, _) if status.is_success() => match (said.experiment, said.experiment_id) {
            (Some(found), _) if found.lifecycle_stage == "deleted" => park(format!(
                "the experiment {name} was deleted at {}: restore it there, or name another one in {EXPERIMENT_NAME}",
                to.address
            )),
            (Some(Experiment { experiment_id: id, .. }), _) | (None, Some(id)) => Ok(id),
            (None, None) => park(format!("{} does not answer as MLflow does: check MLFLOW_TRACKING_URI", to.address)),
        },
        (StatusCode::NOT_FOUND, Some("RESOURCE_DOES_NOT_EXIST"), 1) => {
            Err(request(Method::POST, "create".to_owned(), serde_json::json!({ "name": name }).to_string()))
        }
        (StatusCode::BAD_REQUEST, Some("RESOURCE_ALREADY_EXISTS"), 2) => Err(ask()),
        (StatusCode::NOT_FOUND, None, _) => {
            park(format!("there is no MLflow at {}: check MLFLOW_TRACKING_URI", to.address))
        }
        (status, code, _) => park(format!(
            "the experiment {name} can be neither found nor made at {}: HTTP {status} {}",
            to.address,
            code.unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests;
