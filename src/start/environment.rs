//! The environment variables of a child.

use crate::entry::{VARIABLE, depth};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Changes to the parent's environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    clear: bool,
    changes: BTreeMap<OsString, Option<OsString>>,
}

impl Environment {
    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &OsStr, value: &OsStr) {
        self.changes.insert(name.to_owned(), Some(value.to_owned()));
    }

    /// Removes a variable.
    pub(crate) fn remove(&mut self, name: &OsStr) {
        self.changes.insert(name.to_owned(), None);
    }

    /// Removes all variables, also those set so far.
    pub(crate) fn clear(&mut self) {
        self.clear = true;
        self.changes.clear();
    }

    /// The `NAME=value` strings of the child, if they differ from the parent's.
    pub(crate) fn changed_strings(&self) -> Result<Option<Vec<CString>>> {
        let unchanged = !self.clear && self.changes.is_empty();
        if unchanged { Ok(None) } else { self.strings().map(Some) }
    }

    /// The `NAME=value` strings of the child.
    fn strings(&self) -> Result<Vec<CString>> {
        let mut strings = Vec::new();
        if !self.clear {
            let inherited =
                std::env::vars_os().filter(|(name, _)| !self.changes.contains_key(name));
            for (name, value) in inherited {
                strings.push(join(&name, &value)?);
            }
        }
        for (name, value) in &self.changes {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                let message = format!("{name:?} cannot name an environment variable");
                return Err(Error::invalid(message));
            }
            if let Some(value) = value {
                strings.push(join(name, value)?);
            }
        }
        Ok(strings)
    }

    /// The same, with the variable that makes the new process image a child of ours.
    pub(crate) fn strings_for_exec(&self) -> Result<Vec<CString>> {
        let mut strings = self.strings()?;
        let name = VARIABLE.to_str().unwrap_or_default();
        strings.push(join(name.as_ref(), OsStr::new(&(depth() + 1).to_string()))?);
        Ok(strings)
    }
}

fn join(name: &OsStr, value: &OsStr) -> Result<CString> {
    let mut joined = name.to_owned();
    joined.push("=");
    joined.push(value);
    CString::new(joined.into_vec()).map_err(|_| {
        Error::invalid(format!("the environment variable {name:?} contains a NUL byte"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_environment_holds_only_what_was_set_afterwards() {
        let mut environment = Environment::default();
        environment.set("A".as_ref(), "1".as_ref());
        environment.clear();
        environment.set("B".as_ref(), "2".as_ref());
        assert_eq!(environment.strings().expect("strings"), [c"B=2".to_owned()]);
    }

    #[test]
    fn names_and_values_that_no_environment_can_hold_are_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y")] {
            let mut environment = Environment::default();
            environment.set(name.as_ref(), value.as_ref());
            assert!(environment.strings().expect_err("refused").is_invalid_input());
        }
    }
}
