//! The request headers from the variable that lists them: `name=value,name=value`, percent-encoded like
//! `OTEL_EXPORTER_OTLP_HEADERS`. With a preset the key alone is enough.

use base64::Engine;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::presets::Preset;
use crate::secret::decoded;

/// Headers that this program or the connection sets.
const OURS: [&str; 8] = [
    "content-type",
    "content-encoding",
    "content-length",
    "host",
    "user-agent",
    "connection",
    "transfer-encoding",
    "accept-encoding",
];

/// The headers in `list`, or those of `preset` for its key, and its header for the project `name`.
///
/// # Errors
/// What is wrong with the list. Repeats nothing of it except header names.
pub(super) fn headers(list: &str, preset: Option<&Preset>, name: Option<&str>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in preset.into_iter().flat_map(|preset| preset.fixed) {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    if let (Some(name), Some((header, prefix))) = (name, preset.and_then(|preset| preset.project)) {
        let has_own = name.contains(':') && !prefix.is_empty();
        let value = if has_own { name.to_owned() } else { format!("{prefix}{name}") };
        let value =
            HeaderValue::from_str(&value).map_err(|_| "the name of the project fits in no header".to_owned())?;
        headers.insert(header, value);
    }
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (header, value) = match (pair(item), preset) {
            (Some((header, value)), _) => (header.to_owned(), decoded(value)),
            (None, Some(preset)) => (preset.key.0.to_owned(), key(&decoded(item), preset)),
            (None, None) => return Err("an item of the list is not of the form name=value".to_owned()),
        };
        let header = HeaderName::from_bytes(header.to_ascii_lowercase().as_bytes())
            .map_err(|_| "an item of the list begins with what is no name of a header".to_owned())?;
        if OURS.contains(&header.as_str()) {
            return Err(format!("{header} cannot be set"));
        }
        let mut value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("the value of {header} fits in no header"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Name and value of an item. A base64 key may end with `=`, so an item with nothing after its `=` is not a pair.
fn pair(item: &str) -> Option<(&str, &str)> {
    let (name, value) = item.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
    (is_name && !value.trim_matches('=').is_empty()).then_some((name, value))
}

/// The key in the form its header needs.
fn key(key: &str, preset: &Preset) -> Zeroizing<String> {
    let prefix = preset.key.1;
    if prefix.is_empty() || key.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix)) {
        return Zeroizing::new(key.to_owned());
    }
    // User and password, as account pages show them, are encoded here.
    let encoded = (prefix == "Basic " && key.contains(':'))
        .then(|| Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(key)));
    Zeroizing::new([prefix, encoded.as_ref().map_or(key, |key| key.as_str())].concat())
}

#[cfg(test)]
mod tests {
    use super::{super::presets::named, *};

    fn given(list: &str, preset: &str, name: Option<&str>) -> Result<Vec<(String, String)>, String> {
        let found = headers(list, named(preset), name)?;
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut pairs: Vec<_> = found.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        pairs.sort();
        Ok(pairs)
    }

    #[test]
    fn headers_are_parsed_like_in_opentelemetry() {
        for (list, expect) in [
            ("", &[][..]),
            ("a=b", &[("a", "b")]),
            (" A = b , c=d,", &[("a", "b"), ("c", "d")]),
            ("authorization=Bearer%20x%2Cy", &[("authorization", "Bearer x,y")]),
            ("authorization=Bearer x", &[("authorization", "Bearer x")]),
            ("authorization=Basic YTpi==", &[("authorization", "Basic YTpi==")]),
            ("a=100%", &[("a", "100%")]),
            ("a=%+1", &[("a", "%+1")]),
            ("a=x,a=y", &[("a", "y")]),
        ] {
            let expect: Vec<_> = expect.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(given(list, "", None), Ok(expect), "{list}");
        }
    }

    #[test]
    fn an_invalid_header_list_is_an_error_that_shows_no_secret() {
        for list in
            ["s3cr3t", "=s3cr3t", "a b=s3cr3t", "a=s3cr3t%0Ax", "host=s3cr3t", "Content-Type=s3cr3t", "a=\u{1}s3cr3t"]
        {
            let why = given(list, "", None).unwrap_err();
            assert!(!why.contains("s3cr3t"), "{why}");
        }
        assert!(given("", "phoenix", Some("a\nb")).is_err());
    }

    #[test]
    fn with_a_preset_the_key_is_enough() {
        for (preset, list, name, expect) in [
            ("honeycomb", "k1", None, &[("x-honeycomb-team", "k1")][..]),
            ("Honeycomb", "k1", Some("set"), &[("x-honeycomb-dataset", "set"), ("x-honeycomb-team", "k1")]),
            ("honeycomb", "x-honeycomb-team=k1", None, &[("x-honeycomb-team", "k1")]),
            ("braintrust", "k1", Some("mine"), &[("authorization", "Bearer k1"), ("x-bt-parent", "project_name:mine")]),
            (
                "braintrust",
                "bearer k1",
                Some("project_id:7"),
                &[("authorization", "bearer k1"), ("x-bt-parent", "project_id:7")],
            ),
            ("grafana", "123:glc_x=", None, &[("authorization", "Basic MTIzOmdsY194PQ==")]),
            ("grafana", "MTIzOmdsY194PQ==", None, &[("authorization", "Basic MTIzOmdsY194PQ==")]),
            ("datadog", "k1", None, &[("dd-api-key", "k1"), ("dd-otlp-source", "llmobs")]),
            ("phoenix", "", Some("p"), &[("x-project-name", "p")]),
            (
                "opik",
                "k1,Comet-Workspace=w",
                Some("p"),
                &[("authorization", "k1"), ("comet-workspace", "w"), ("projectname", "p")],
            ),
            ("nobody", "a=b", Some("p"), &[("a", "b")]),
        ] {
            let expect: Vec<_> = expect.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(given(list, preset, name), Ok(expect), "{preset} {list}");
        }
    }

    #[test]
    fn presets_are_sorted_unique_and_have_valid_headers() {
        use super::super::presets::PRESETS;
        assert!(PRESETS.is_sorted_by(|one, two| one.name < two.name));
        for preset in PRESETS {
            let names = [preset.key.0].into_iter().chain(preset.project.map(|(name, _)| name));
            for name in names.chain(preset.fixed.iter().map(|(name, _)| *name)) {
                assert_eq!(HeaderName::from_bytes(name.as_bytes()).unwrap().as_str(), name);
            }
        }
    }
}
