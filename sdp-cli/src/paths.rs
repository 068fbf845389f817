//! Where the command's files are, and what it takes from the environment.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The environment variables, as they were when the command began.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self(env::vars_os().collect())
    }

    /// A variable that is set to something that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(OsString::from(name).as_os_str())?.to_str().filter(|text| !text.is_empty())
    }

    /// A variable that names a place, which counts only when it is whole (XDG Base Directory Specification).
    fn place(&self, name: &str) -> Option<PathBuf> {
        let place = PathBuf::from(self.0.get(OsString::from(name).as_os_str())?);
        place.is_absolute().then_some(place)
    }
}

impl FromIterator<(OsString, OsString)> for Variables {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// The files.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    dir: PathBuf,
}

impl Paths {
    /// Below `$XDG_CONFIG_HOME`, or `~/.config`. None when there is no home.
    pub(crate) fn new(variables: &Variables) -> Option<Self> {
        let base = variables.place("XDG_CONFIG_HOME").or_else(|| Some(variables.place("HOME")?.join(".config")))?;
        Some(Self { dir: base.join("sdp") })
    }

    /// What a person sets.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Whom they are signed in as, for their eyes only.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.dir.join("credentials.toml")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(pairs: &[(&str, &str)]) -> Option<PathBuf> {
        let variables = pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        Paths::new(&variables).map(|paths| paths.dir)
    }

    #[test]
    fn files_are_where_the_desktops_agreed_on() {
        assert_eq!(dir(&[("HOME", "/home/ada")]).unwrap(), Path::new("/home/ada/.config/sdp"));
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]).unwrap(), Path::new("/x/sdp"));
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")]).unwrap(), Path::new("/h/.config/sdp"));
        assert_eq!(dir(&[]), None);
    }
}
