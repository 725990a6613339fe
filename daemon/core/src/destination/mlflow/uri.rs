//! Tracking URIs as MLflow's users write them → where traces go.

use url::Url;

use crate::{
    destination::address::{origin, unquoted},
    secret::decoded,
};

/// The default file store, relative to the project.
const DEFAULT: &str = ".claude/mlflow/runs";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Without trailing slash.
    Server(String),
    /// An absolute path.
    Files(String),
    /// An unsupported store: its URI without credentials.
    Other(String),
}

/// A parsed URI with the credentials it contained.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) place: Place,
    pub(super) userinfo: Option<(String, String)>,
}

/// Parses a tracking URI; a missing one stands for MLflow's documented default. Relative paths are below `project`. `None` if
/// it names neither.
pub(super) fn read(uri: Option<&str>, project: Option<&str>) -> Option<Read> {
    let uri = unquoted(uri.unwrap_or(DEFAULT));
    let files = |path: &str| {
        let place = Place::Files(below(path, project)?);
        Some(Read { place, userinfo: None })
    };
    let Some((scheme, rest)) = uri.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        let known = ["databricks", "uc"];
        if known.contains(&uri) {
            return Some(Read { place: Place::Other(uri.to_owned()), userinfo: None });
        }
        return if uri.is_empty() { None } else { files(uri) };
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {
            let host = origin(uri)?;
            let url = Url::parse(uri).ok()?;
            let path = url.path().trim_end_matches('/');
            let name = decoded(url.username()).to_string();
            let userinfo = url.password().filter(|_| !name.is_empty());
            let userinfo = userinfo.map(|password| (name.clone(), decoded(password).to_string()));
            let address = format!("{host}{path}");
            address.parse::<http::Uri>().ok()?;
            Some(Read { place: Place::Server(address), userinfo })
        }
        "file" => match rest.strip_prefix("//") {
            // MLflow parses this `.` as a host but documents it as the project's directory.
            Some(rest) if rest == "." || rest.starts_with("./") => files(rest),
            Some(rest) if rest.starts_with('/') => files(rest),
            Some(rest) if rest.starts_with("localhost/") => files(&rest["localhost".len()..]),
            Some(_) => None,
            None => files(rest),
        },
        _ => Some(Read { place: Place::Other(proto::env::without_userinfo(uri)), userinfo: None }),
    }
}

/// True for a scheme, false for a drive letter or directory.
fn is_scheme(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// The absolute path without `.` and `..`; `None` if it is relative and the project is unknown, or if it leads above the root.
fn below(path: &str, project: Option<&str>) -> Option<String> {
    let path = decoded(path);
    let whole = if path.starts_with('/') { path.to_string() } else { format!("{}/{}", project?, *path) };
    if !whole.starts_with('/') || whole.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

/// Why traces cannot be sent to an unsupported store, and what to do.
pub(super) fn remedy(uri: &str) -> String {
    let scheme = uri.split(':').next().unwrap_or_default();
    let scheme = scheme.split('+').next().unwrap_or_default();
    match scheme {
        "sqlite" | "postgresql" | "mysql" | "mssql" => format!(
            "{uri} is MLflow's own database, which nothing but MLflow writes: run `mlflow server --backend-store-uri {uri}` and set \
             MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
        ),
        "databricks" | "databricks-uc" | "uc" => format!(
            "traces are not sent to {uri}: set MLFLOW_TRACKING_URI to the address of an MLflow server, such as http://127.0.0.1:5000"
        ),
        _ => format!(
            "{uri} is neither an MLflow server nor a directory: set MLFLOW_TRACKING_URI to http://127.0.0.1:5000, or where your server is"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uri: &str) -> Option<Place> {
        read(Some(uri), Some("/home/dev/app")).map(|read| read.place)
    }

    #[test]
    fn a_uri_is_resolved_as_mlflow_documents_it() {
        let server = |address: &str| Some(Place::Server(address.into()));
        let files = |path: &str| Some(Place::Files(path.into()));
        let other = |uri: &str| Some(Place::Other(uri.into()));
        for (uri, expect) in [
            ("http://127.0.0.1:5000", server("http://127.0.0.1:5000")),
            (" \"HTTP://LocalHost:80/\" ", server("http://localhost")),
            ("https://mlflow.example.org/prefix/", server("https://mlflow.example.org/prefix")),
            ("https://me:p%40w@mlflow.example.org", server("https://mlflow.example.org")),
            ("https://", None),
            ("http://a b", None),
            ("file:///srv/runs", files("/srv/runs")),
            ("file:/srv//runs/", files("/srv/runs")),
            ("file:runs", files("/home/dev/app/runs")),
            ("file://localhost/srv/x", files("/srv/x")),
            ("file://./.claude/mlflow/runs", files("/home/dev/app/.claude/mlflow/runs")),
            ("file:///a%20b", files("/a b")),
            ("runs", files("/home/dev/app/runs")),
            ("./mlruns", files("/home/dev/app/mlruns")),
            ("../runs", files("/home/dev/runs")),
            ("/srv/runs", files("/srv/runs")),
            ("file://name", None),
            ("file://name/x", None),
            ("file:///", None),
            ("/../..", None),
            ("", None),
            ("sqlite:///mlflow.db", other("sqlite:///mlflow.db")),
            ("postgresql+psycopg2://me:pw@db/x", other("postgresql+psycopg2://db/x")),
            ("databricks", other("databricks")),
            ("databricks://profile", other("databricks://profile")),
            ("uc:x", other("uc:x")),
        ] {
            assert_eq!(place(uri), expect, "{uri}");
        }
        assert_eq!(read(None, Some("/p")).unwrap().place, Place::Files("/p/.claude/mlflow/runs".into()));
        assert_eq!(read(Some("runs"), None), None);
        assert_eq!(read(Some("/x"), None).unwrap().place, Place::Files("/x".into()));
    }

    #[test]
    fn credentials_are_removed_from_a_uri() {
        let userinfo = |uri: &str| read(Some(uri), None).unwrap().userinfo;
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(userinfo("https://me:p%40w@mlflow.example.org"), pair("me", "p@w"));
        assert_eq!(userinfo("https://me@mlflow.example.org"), None);
        assert_eq!(userinfo("https://mlflow.example.org"), None);
    }

    #[test]
    fn unsupported_stores_get_a_remedy() {
        for uri in ["sqlite:///a.db", "postgresql+psycopg2://db/x", "mysql://db/x"] {
            let why = remedy(uri);
            assert!(
                why.contains(&format!("mlflow server --backend-store-uri {uri}"))
                    && why.contains("http://127.0.0.1:5000")
            );
        }
        for uri in ["databricks", "uc:x", "s3://bucket", "nonsense:x"] {
            assert!(remedy(uri).contains("MLFLOW_TRACKING_URI"), "{uri}");
        }
    }
}
