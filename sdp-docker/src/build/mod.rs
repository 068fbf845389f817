//! Building a checkout on the host, the same for every deployer, and once for all checkouts of a
//! repo.

mod composer;
mod key;
mod last_lines;
mod prune;
mod recipe;
mod runner;
mod seal;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sdp_core::{Artifact, DeployError, DeployJob, DeploymentId, EventKind, EventSink, InstanceKey, RecipeKind, Stage};
use tokio_util::sync::CancellationToken;

use self::{
    key::BuildKey,
    runner::{Outcome, Step},
    seal::OUT,
    store::{Kept, Lock, Store},
};
pub(crate) use self::{recipe::run_command, runner::base_env};
use crate::marked;

/// How long a tool may take to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a build that someone else makes is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The folder of a checkout that belongs to SDP.
pub(crate) fn own_folder(checkout: &Path) -> PathBuf {
    checkout.join(".sdp")
}

/// Ends what a build of this deployment left running when its agent died, but for the process group
/// `keep`.
pub(crate) async fn end(deployment: DeploymentId, keep: Option<i32>) -> Result<(), DeployError> {
    in_background("end a build", move || {
        marked::kill(deployment, keep);
        Ok(())
    })
    .await
}

/// The builds of a deployer's repos. Clones share what is about to run.
#[derive(Debug, Clone)]
pub(crate) struct Builds {
    /// How many good ones of a repo are kept besides those in use.
    keep: usize,
    /// The last build of each instance, which it may be about to be started from.
    leased: Arc<Mutex<BTreeMap<InstanceKey, BuildKey>>>,
}

impl Builds {
    pub(crate) fn new(keep: usize) -> Self {
        Self { keep, leased: Arc::default() }
    }

    /// Builds the job's checkout by its recipe, or finds it built.
    pub(crate) async fn build(
        &self,
        job: &DeployJob,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, DeployError> {
        if cancel.is_cancelled() {
            return Err(DeployError::Cancelled);
        }
        let nothing = Artifact { path: None, reused: false };
        if job.repo.recipe == RecipeKind::Php {
            return composer::install(job, sink, cancel).await.map(|()| nothing);
        }
        let Some(argv) = recipe::build_command(job) else { return Ok(nothing) };
        let toolchain = match job.repo.recipe {
            RecipeKind::Go => version(&["go", "version"], job, cancel).await?,
            _ => String::new(),
        };
        let key = BuildKey::new(job, &argv, &toolchain);
        // Before the look at the store, so that what is found there stays.
        self.leases().insert(job.key.clone(), key.clone());
        let store = Store::new(job.repo.builds());
        match find(&store, &key, sink, cancel).await? {
            Found::Built(path) => {
                note(sink, format!("this tree is built already: {}", job.checkout.tree)).await?;
                Ok(Artifact { path: Some(path), reused: true })
            }
            Found::Ours(lock) => {
                let path = make(lock, store.folder(&key), job, &argv, sink, cancel).await?;
                Ok(Artifact { path, reused: false })
            }
        }
    }

    /// Notes that `artifact` has proved good, and removes builds of its repo that are not needed.
    /// `in_use` is every artifact that any instance has, of whatever sandbox.
    pub(crate) async fn settled(
        &self,
        artifact: Option<PathBuf>,
        in_use: impl IntoIterator<Item = PathBuf>,
    ) -> Result<(), DeployError> {
        let Some(folder) = artifact.filter(|path| path.ends_with(OUT)).and_then(|out| Some(out.parent()?.to_owned()))
        else {
            return Ok(());
        };
        let Some(store) = folder.parent().map(Path::to_owned) else { return Ok(()) };
        let mut in_use: BTreeSet<String> = in_use.into_iter().filter_map(|path| key_of(&path)).collect();
        let this = self.clone();
        in_background("remove old builds", move || {
            prune::mark_good(&folder)?;
            let doomed = {
                let leases = this.leases();
                in_use.extend(leases.values().map(BuildKey::to_string));
                prune::sort_out(&store, &in_use, this.keep)?
            };
            doomed.iter().try_for_each(|path| match fs::remove_dir_all(path) {
                // Somebody else prunes as well.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            })
        })
        .await
    }

    /// Forgets an instance that is removed.
    pub(crate) fn forget(&self, instance: &InstanceKey) {
        self.leases().remove(instance);
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, BuildKey>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a build by where what it made is. Its store may be configured under another path by
/// now.
fn key_of(artifact: &Path) -> Option<String> {
    Some(artifact.parent()?.file_name()?.to_str()?.to_owned())
}

/// What a look at the store comes to.
enum Found {
    Built(PathBuf),
    /// It is this caller's to build.
    Ours(Lock),
}

/// Finds a build, waiting for the one who makes it.
async fn find(
    store: &Store,
    key: &BuildKey,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Found, DeployError> {
    let mut waiting = false;
    loop {
        let (looked, its) = (store.clone(), key.clone());
        let look = move || {
            if let Kept::Whole(path) = looked.look(&its)? {
                return Ok((Some(Found::Built(path)), None));
            }
            let Some(lock) = looked.try_lock(&its)? else { return Ok((None, None)) };
            // It may have been finished since the first look.
            Ok(match looked.look(&its)? {
                Kept::Whole(path) => (Some(Found::Built(path)), None),
                Kept::Nothing => (Some(Found::Ours(lock)), None),
                Kept::Damaged(damage) => (Some(Found::Ours(lock)), Some(damage)),
            })
        };
        let (found, damage) = in_background("use the store of builds", look).await?;
        if let Some(damage) = damage {
            note(sink, format!("the build kept of this tree is damaged ({}); building it again", damage.0)).await?;
        }
        if let Some(found) = found {
            return Ok(found);
        }
        if !std::mem::replace(&mut waiting, true) {
            note(sink, "this tree is being built already; waiting for that build").await?;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = cancel.cancelled() => return Err(DeployError::Cancelled),
        }
    }
}

/// Runs the build with an output folder of its own, which takes its final name only when all of it
/// is there. Answers where that is; none when the build made nothing there.
async fn make(
    lock: Lock,
    target: PathBuf,
    job: &DeployJob,
    argv: &[String],
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Option<PathBuf>, DeployError> {
    let stage = lock
        .stage(job.deployment)
        .map_err(|source| DeployError::Io { action: "make a folder to build into".into(), source })?;
    let out = stage.join(OUT);
    let argv = recipe::with_out(argv, &out);
    let step = Step {
        argv: &argv,
        dir: &job.checkout.path,
        env: recipe::build_env(job, &out),
        timeout: job.repo.build_timeout,
    };
    if let Outcome::Failed { outcome, last_lines } = runner::run(step, sink, cancel).await? {
        return Err(DeployError::Build { command: argv.join(" "), outcome, last_lines });
    }
    let kept = in_background("keep a build", move || {
        if seal::is_empty(&stage)? {
            return Ok(None);
        }
        lock.keep(&stage, &target)?;
        Ok(Some(target.join(OUT)))
    })
    .await?;
    if job.repo.recipe == RecipeKind::Go && kept.is_none() {
        let last_lines = vec!["it exited with 0 and made no program".to_owned()];
        return Err(DeployError::Build { command: argv.join(" "), outcome: "made nothing".into(), last_lines });
    }
    Ok(kept)
}

/// What a tool says its version is; also the check that it is there.
async fn version(argv: &[&str], job: &DeployJob, cancel: &CancellationToken) -> Result<String, DeployError> {
    let argv: Vec<_> = argv.iter().map(|arg| (*arg).to_owned()).collect();
    let out = own_folder(&job.checkout.path);
    let step =
        Step { argv: &argv, dir: &job.checkout.path, env: recipe::build_env(job, &out), timeout: VERSION_TIMEOUT };
    runner::capture(step, cancel).await
}

async fn note(sink: &dyn EventSink, line: impl Into<String>) -> Result<(), DeployError> {
    sink.accept(EventKind::note(Stage::Build, line)).await?;
    Ok(())
}

/// Does what keeps a disk busy on a thread that may wait for it.
async fn in_background<T: Send + 'static>(
    action: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DeployError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.into()));
    done.map_err(|source| DeployError::Io { action: action.into(), source })
}
