//! Tools of cargo's that are not part of it: the one on the path, or one that is built below the target directory.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::workspace::Workspace;

#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// What is built where none is installed.
    pub(crate) version: &'static str,
    /// Features and the like.
    pub(crate) options: &'static [&'static str],
}

impl Tool {
    pub(crate) fn find(&self, target: &Path) -> Option<PathBuf> {
        let candidates = [PathBuf::from(self.name), self.built(target)];
        candidates
            .into_iter()
            .find(|program| process::succeeds(Command::new(program).arg("--version")))
    }

    /// Where [`install`](Self::install) puts it.
    pub(crate) fn built(&self, target: &Path) -> PathBuf {
        let program = format!("{}{EXE_SUFFIX}", self.name);
        self.root(target).join("bin").join(program)
    }

    /// Builds it, without optimisation: it runs for a second, and is built in a third of the time.
    pub(crate) fn install(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.cargo(["install", self.name, "--version", self.version]);
        command
            .args(["--locked", "--debug"])
            .args(self.options)
            .arg("--root")
            .arg(self.root(workspace.target()));
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // The temporary directory that cargo takes by itself goes away afterwards.
        command.env_remove("CARGO_TARGET_DIR");
        command
    }

    fn root(&self, target: &Path) -> PathBuf {
        target.join(format!("tools/{}-{}", self.name, self.version))
    }
}
