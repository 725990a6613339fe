//! The environment this program was started with. Only this module asks the system for it.
#![expect(clippy::disallowed_methods, reason = "this is where the environment is read")]

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use proto::paths::Paths;

/// The bytes of a variable.
pub fn raw(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The text of a variable; `None` if it is not UTF-8.
pub fn text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that holds an absolute path; `None` if it is relative.
pub fn absolute(name: &str) -> Option<PathBuf> {
    raw(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Every variable whose name and value are UTF-8.
pub fn all() -> Vec<(String, String)> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// The variables that a hook started in this environment would forward.
pub fn forwarded() -> Vec<(String, String)> {
    proto::env::forwarded().filter_map(|name| Some((name.to_owned(), text(name)?))).collect()
}

/// The user's home, unless the variable is unset or empty.
pub fn home() -> Option<PathBuf> {
    raw("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The paths of the daemon of the user with this home.
pub fn paths(home: &Path) -> Paths {
    Paths::new(home, raw(proto::env::STATE_DIR).as_deref())
}
