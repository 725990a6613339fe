//! Glob patterns for project directories: `~/code/**`, `/srv/*/app`.

use std::path::{Path, PathBuf};

use regex::Regex;

/// A pattern. `*` matches any characters within one name, `?` one of them, `**` any number of names, including none.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    is_below_home: bool,
    names: Regex,
}

impl Glob {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Why it is not valid, for people.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (is_below_home, path) = match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => (true, rest),
            _ if text.starts_with('/') => (false, text),
            _ => return Err("must begin with `/` or `~/`".to_owned()),
        };
        let mut names = String::from("^");
        for name in path.split('/').filter(|name| !name.is_empty()) {
            names += &match name {
                "**" => "(?:/[^/]+)*".to_owned(),
                "." | ".." => return Err(format!("must not contain `{name}`")),
                _ if name.contains("**") => return Err("`**` must stand alone between two `/`".to_owned()),
                _ if name.contains(['[', ']', '{', '}', '\\']) => {
                    return Err("the only wildcards are `*`, `**` and `?`".to_owned());
                }
                _ => format!("/{}", regex::escape(name).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")),
            };
        }
        let names = Regex::new(&(names + "$")).map_err(|_| "is too long".to_owned())?;
        Ok(Self { is_below_home, names })
    }

    /// True if it matches `dir`. `homes` are all paths of the user's home.
    pub(super) fn matches(&self, dir: &Path, homes: &[PathBuf]) -> bool {
        let is_it = |below: &Path| {
            let names: String = below.iter().map(|name| format!("/{}", name.to_string_lossy())).collect();
            self.names.is_match(&names)
        };
        match self.is_below_home {
            true => homes.iter().filter_map(|home| dir.strip_prefix(home).ok()).any(is_it),
            false => dir.strip_prefix("/").is_ok_and(is_it),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_directories_name_by_name() {
        let homes = [PathBuf::from("/home/d+v"), PathBuf::from("/mnt/homes/d+v")];
        for (pattern, yes, no) in [
            (
                "~/code/**",
                &["/home/d+v/code", "/home/d+v/code/a/b", "/mnt/homes/d+v/code/a"][..],
                &["/home/d+v", "/home/d+v/codes", "/code/a", "/home/dev/code/a"][..],
            ),
            ("~/code", &["/home/d+v/code"], &["/home/d+v/code/a"]),
            ("~/code/", &["/home/d+v/code"], &["/home/d+v/code/a"]),
            ("~", &["/home/d+v"], &["/home/d+v/a", "/home"]),
            ("/srv/*/app", &["/srv/x/app", "/srv/.x/app"], &["/srv/app", "/srv/x/y/app", "/srv/x/app/z"]),
            ("/srv/**/app", &["/srv/app", "/srv/x/y/app"], &["/srv/x/apps"]),
            ("/**", &["/", "/a", "/home/d+v"], &[]),
            ("/", &["/"], &["/a"]),
            ("/a?c/x*", &["/abc/x", "/aäc/xyz"], &["/ac/x", "/a/c/x", "/abc/y"]),
            ("/a.(b)+", &["/a.(b)+"], &["/axbb"]),
        ] {
            let glob = Glob::read(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            for dir in yes {
                assert!(glob.matches(Path::new(dir), &homes), "{pattern} {dir}");
            }
            for dir in no {
                assert!(!glob.matches(Path::new(dir), &homes), "{pattern} {dir}");
            }
        }
    }

    #[test]
    fn invalid_patterns_are_refused_with_a_reason() {
        for (pattern, why) in [
            ("", "begin with"),
            ("work/**", "begin with"),
            ("~other/work", "begin with"),
            ("**", "begin with"),
            ("/a/../b", "`..`"),
            ("~/./b", "`.`"),
            ("/a**", "stand alone"),
            ("/***", "stand alone"),
            ("/[ab]", "only"),
            ("/{a,b}", "only"),
        ] {
            let said = Glob::read(pattern).expect_err(pattern);
            assert!(said.contains(why), "{pattern}: {said}");
        }
    }
}
