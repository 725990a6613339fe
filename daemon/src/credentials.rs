//! Where a destination's secret key comes from, and the type that keeps it from going anywhere else (invariant 6).
//!
//! A key is known from the hook that brought it; after a restart, or when the server refuses it, the `env` blocks of the
//! project's and the user's Claude Code settings are read again. A key is used only with the base URL and public key it
//! stood beside.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::hook::{Destination, Env};

/// Largest settings file that is read, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// A secret key. It can be compared and turned into an `Authorization` header, and nothing else: there is no way to print,
/// log or serialise it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the key into custody.
    pub fn new(key: &str) -> Self {
        Self(Zeroizing::new(key.to_owned()))
    }

    /// `Basic` credentials for Langfuse.
    pub fn basic_auth(&self, public_key: &str) -> http::HeaderValue {
        use base64::Engine;
        let pair = Zeroizing::new(format!("{public_key}:{}", *self.0));
        let text =
            Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())));
        // Base64 is always a valid header value.
        let mut value = http::HeaderValue::from_str(&text).unwrap_or(http::HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// `text` without the key, and without the credentials made of it: a server may repeat what it was sent.
    pub fn conceal(&self, public_key: &str, text: &str) -> String {
        let header = self.basic_auth(public_key);
        let encoded = header.to_str().unwrap_or_default().trim_start_matches("Basic ");
        [encoded, &self.0].into_iter().filter(|secret| !secret.is_empty()).fold(text.to_owned(), |text, secret| {
            if text.contains(secret) { text.replace(secret, "[secret]") } else { text }
        })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.bytes().zip(other.0.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

/// Looks for the secret of `destination` in the settings files of the projects that use it. `home` is the user's home.
pub fn from_settings(destination: &Destination, project_dirs: &[PathBuf], home: &Path) -> Option<Secret> {
    let user = read_env(&home.join(".claude/settings.json"));
    let nowhere = PathBuf::new();
    let dirs = project_dirs.iter().chain(std::iter::once(&nowhere));
    dirs.map(|dir| {
        let mut files = vec![user.clone()];
        if dir != &nowhere {
            files.push(read_env(&dir.join(".claude/settings.json")));
            files.push(read_env(&dir.join(".claude/settings.local.json")));
        }
        // An empty value in a later file unsets that of an earlier one.
        let merged: BTreeMap<String, String> = files.into_iter().flatten().collect();
        let env = Env::new(merged.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // The key must have been meant for this server.
        (env.destination().as_ref() == Ok(destination)).then(|| env.secret()).flatten()
    })
    .find(Option::is_some)
    .flatten()
}

/// The `env` block of a settings file; empty if there is none to be read with trust.
fn read_env(path: &Path) -> BTreeMap<String, String> {
    #[derive(serde::Deserialize)]
    struct Settings {
        #[serde(default)]
        env: BTreeMap<String, serde_json::Value>,
    }
    let read = || -> Option<Settings> {
        let file = File::from(
            rustix::fs::open(
                path,
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .ok()?,
        );
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.len() > MAX_SETTINGS {
            return None;
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_SETTINGS).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    };
    let env = read().map(|settings| settings.env).unwrap_or_default();
    env.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::Kind;

    fn write(dir: &Path, name: &str, env: &str) {
        std::fs::create_dir_all(dir.join(".claude")).unwrap();
        std::fs::write(dir.join(".claude").join(name), format!(r#"{{"hooks":{{}},"env":{env}}}"#)).unwrap();
    }

    fn found(destination: &Destination, dirs: &[PathBuf], home: &Path) -> Option<String> {
        from_settings(destination, dirs, home).map(|secret| secret.0.to_string())
    }

    #[test]
    fn a_key_is_found_beside_its_own_server_only() {
        let base = tempfile::tempdir().unwrap();
        let (home, a, b) = (base.path().join("home"), base.path().join("a"), base.path().join("b"));
        let to =
            |url: &str, key: &str| Destination { kind: Kind::Langfuse, base_url: url.into(), public_key: key.into() };
        write(&a, "settings.json", r#"{"LANGFUSE_PUBLIC_KEY":"pk-a","LANGFUSE_SECRET_KEY":"committed"}"#);
        write(
            &a,
            "settings.local.json",
            r#"{"LANGFUSE_BASE_URL":"https://A.example/","LANGFUSE_SECRET_KEY":"local","X":1}"#,
        );
        write(
            &b,
            "settings.local.json",
            r#"{"LANGFUSE_PUBLIC_KEY":"pk-b","LANGFUSE_SECRET_KEY":"b","CC_LANGFUSE_SECRET_KEY":""}"#,
        );
        write(
            &home,
            "settings.json",
            r#"{"CC_LANGFUSE_PUBLIC_KEY":"","LANGFUSE_PUBLIC_KEY":"pk-u","LANGFUSE_SECRET_KEY":"user"}"#,
        );
        let dirs = [a, b];
        assert_eq!(found(&to("https://a.example", "pk-a"), &dirs, &home).as_deref(), Some("local"));
        assert_eq!(found(&to("https://cloud.langfuse.com", "pk-a"), &dirs, &home), None);
        assert_eq!(found(&to("https://cloud.langfuse.com", "pk-b"), &dirs, &home).as_deref(), Some("b"));
        assert_eq!(found(&to("https://cloud.langfuse.com", "pk-u"), &dirs, &home).as_deref(), Some("user"));
        assert_eq!(found(&to("https://evil.example", "pk-u"), &dirs, &home), None);
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_not_read() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("settings.json");
        assert!(read_env(&path).is_empty(), "missing");
        std::fs::write(&path, "{").unwrap();
        assert!(read_env(&path).is_empty(), "not JSON");
        assert!(read_env(base.path()).is_empty(), "a directory");
        std::fs::write(&path, vec![b' '; MAX_SETTINGS as usize + 1]).unwrap();
        assert!(read_env(&path).is_empty(), "too large");
    }
}
