//! Langfuse's media API and its storage, which accepts only what was signed for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::{Answer, Request};

/// The headers that a signature of the storage covers.
const SIGNED: [&str; 4] = ["content-length", "content-type", "host", "x-amz-checksum-sha256"];

/// The API with its own storage, as part of a [`Server`](crate::Server)'s answers.
#[derive(Clone, Default)]
pub struct MediaApi(Arc<Mutex<Media>>);

/// What it received.
#[derive(Clone, Debug, Default)]
pub struct Media {
    /// Every link asked for: media id, trace, observation, field.
    pub links: Vec<[String; 4]>,
    /// Type and bytes of each accepted upload, by media id.
    pub files: BTreeMap<String, Vec<(String, Vec<u8>)>>,
    /// Media ids whose upload was reported.
    pub there: BTreeSet<String>,
    /// Why uploads were refused.
    pub refused: Vec<&'static str>,
}

impl MediaApi {
    pub fn seen(&self) -> Media {
        self.lock().clone()
    }

    /// The bytes of every file whose upload was reported, by media id.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let seen = self.seen();
        seen.there.iter().map(|id| (id.clone(), seen.files[id][0].1.clone())).collect()
    }

    /// Answers like Langfuse. A request that is not about media is accepted.
    pub fn answer(&self, request: &Request) -> Answer {
        let mut seen = self.lock();
        let body: serde_json::Value = serde_json::from_slice(&request.plain).unwrap_or_default();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/api/public/media") => {
                let mut id = text("sha256Hash").replace('+', "-").replace('/', "_");
                id.truncate(22);
                let host = request.header("host").unwrap_or_default();
                let bound = [&body["contentLength"].to_string(), &text("contentType"), host, &text("sha256Hash")];
                let signature = signature(&id, bound);
                let signed = format!("X-Amz-SignedHeaders={}&X-Amz-Signature={signature}", SIGNED.join("%3B"));
                let url = (!seen.there.contains(&id)).then(|| format!("http://{host}/storage/{id}?{signed}"));
                seen.links.push([id.clone(), text("traceId"), text("observationId"), text("field")]);
                Answer::status(201).body(&serde_json::json!({"mediaId": id, "uploadUrl": url}).to_string())
            }
            ("PUT", path) => match upload(request, path) {
                Ok((id, file)) => {
                    seen.files.entry(id).or_default().push(file);
                    // A storage answers with an empty body.
                    Answer::ok().body("")
                }
                Err(why) => {
                    seen.refused.push(why);
                    let status = if why == "SignatureDoesNotMatch" { 403 } else { 400 };
                    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{why}</Code></Error>");
                    Answer::status(status).header("content-type", "application/xml").body(&body)
                }
            },
            ("PATCH", path) => {
                let id = path.trim_start_matches("/api/public/media/");
                if body["uploadHttpStatus"] == 200 && seen.files.contains_key(id) {
                    seen.there.insert(id.to_owned());
                }
                Answer::ok()
            }
            _ => Answer::ok(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Media> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file that `request` uploads, checked like S3: the signature covers length, type, host and checksum; the checksum
/// covers the bytes; a second form of authentication is refused.
fn upload(request: &Request, path: &str) -> Result<(String, (String, Vec<u8>)), &'static str> {
    let (id, query) = path.trim_start_matches("/storage/").split_once('?').ok_or("AccessDenied")?;
    if request.header("authorization").is_some() {
        return Err("InvalidArgument");
    }
    let bound = SIGNED.map(|name| request.header(name).unwrap_or_default());
    if query.rsplit('=').next() != Some(&signature(id, bound)) {
        return Err("SignatureDoesNotMatch");
    }
    if STANDARD.encode(Sha256::digest(&request.raw)) != bound[3] {
        return Err("XAmzContentChecksumMismatch");
    }
    Ok((id.to_owned(), (bound[1].to_owned(), request.raw.clone())))
}

/// The signature for an upload of `id` with these values of [`SIGNED`].
fn signature(id: &str, bound: [&str; 4]) -> String {
    let digest = Sha256::digest(format!("a key of the storage\n{id}\n{}", bound.join("\n")));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Request {
        Request {
            method: method.into(),
            path: path.into(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            raw: body.to_vec(),
            plain: body.to_vec(),
            spans: vec![],
            at: std::time::Instant::now(),
            status: 0,
        }
    }

    #[test]
    fn an_upload_is_accepted_only_as_signed() {
        let hash = STANDARD.encode(Sha256::digest(b"ABCD"));
        let asked = serde_json::json!({"contentType": "image/png", "contentLength": 4, "sha256Hash": hash});
        let good = [
            ("content-length", "4"),
            ("content-type", "image/png"),
            ("host", "here"),
            ("x-amz-checksum-sha256", hash.as_str()),
        ];
        let other = STANDARD.encode(Sha256::digest(b"ABCE"));
        for (change, body, why) in [
            (None, &b"ABCD"[..], None),
            (Some(("content-length", "5")), b"ABCD", Some("SignatureDoesNotMatch")),
            (Some(("content-type", "image/jpeg")), b"ABCD", Some("SignatureDoesNotMatch")),
            (Some(("host", "there")), b"ABCD", Some("SignatureDoesNotMatch")),
            (Some(("x-amz-checksum-sha256", other.as_str())), b"ABCD", Some("SignatureDoesNotMatch")),
            (Some(("x-amz-checksum-sha256", "")), b"ABCD", Some("SignatureDoesNotMatch")),
            (Some(("authorization", "Basic x")), b"ABCD", Some("InvalidArgument")),
            (None, b"ABCE", Some("XAmzContentChecksumMismatch")),
        ] {
            let api = MediaApi::default();
            let host = [("host", "here")];
            api.answer(&request("POST", "/api/public/media", &host, asked.to_string().as_bytes()));
            let id = api.seen().links[0][0].clone();
            let path = format!("/storage/{id}?X-Amz-Signature={}", signature(&id, good.map(|(_, value)| value)));
            let mut headers: BTreeMap<&str, &str> = good.into();
            headers.extend(change);
            let headers: Vec<(&str, &str)> = headers.into_iter().collect();
            api.answer(&request("PUT", &path, &headers, body));
            let seen = api.seen();
            assert_eq!(
                (seen.refused.first().copied(), seen.files.len()),
                (why, usize::from(why.is_none())),
                "{change:?}"
            );
        }
    }
}
