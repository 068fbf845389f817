//! Load on gateways from a process of its own, which knows at every moment what may answer a request.
//!
//! The process, [`serve`], reads orders from its standard input, a line of JSON each, and answers each with a line of
//! what it has counted so far. [`Load`] is its other end.
//!
//! A request is answered rightly by what was right when it was sent, and by what is right when its answer has come:
//! who changes a route first lets both be right, makes the change, sees it, and then lets only the new one be right.
//! Nothing excuses a request that fails. Each has a connection of its own: one that is kept may be closed by the
//! gateway at the moment in which a request is sent, which every client has to bear.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sdp_core::model::explain::KEY_HEADER;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::Failed;

/// A request that is not answered within this has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many complaints are kept of each stream.
const COMPLAINTS: usize = 5;

/// Requests that are sent one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// What they are called.
    pub name: String,
    /// What they ask.
    pub url: String,
    /// The sandbox's key that they carry.
    pub key: Option<String>,
    /// The pause between an answer and the next request.
    pub pause: Duration,
    /// The services' messages that answer them rightly.
    pub right: BTreeSet<String>,
}

impl Stream {
    /// Sends one request, and answers the service's message.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(&self, client: &reqwest::Client) -> Result<String, Failed> {
        let request = client.get(&self.url);
        let request = self.key.iter().fold(request, |request, key| request.header(KEY_HEADER, key));
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            return Err(Failed(format!("{status}: {}", text.trim())));
        }
        let answer: Answer = serde_json::from_str(&text).map_err(|error| Failed(format!("{error} in {text:?}")))?;
        Ok(answer.message)
    }
}

/// What a service answers, as far as it matters here.
#[derive(Deserialize)]
struct Answer {
    message: String,
}

/// A client whose every request has a connection of its own.
///
/// # Errors
/// When it cannot be made.
pub fn client() -> Result<reqwest::Client, Failed> {
    Ok(reqwest::Client::builder().timeout(TIMEOUT).no_proxy().pool_max_idle_per_host(0).build()?)
}

/// What became of a stream's requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Answered rightly.
    pub right: u64,
    /// Not answered, or with an error.
    pub failed: u64,
    /// Answered by what was not right.
    pub misrouted: u64,
    /// The slowest answer.
    pub slowest: Duration,
    /// What was wrong with the first that failed or were misrouted.
    pub complaints: Vec<String>,
}

impl Count {
    fn complain(&mut self, what: String) {
        if self.complaints.len() < COMPLAINTS {
            self.complaints.push(format!("{} {what}", jiff::Timestamp::now()));
        }
    }
}

/// What was counted, by stream.
pub type Report = BTreeMap<String, Count>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// Begin a stream, or go on with it so.
    Send(Stream),
    /// End a stream. Its last request has its answer when this has.
    Stop(String),
    /// Say what was counted.
    Tell,
}

/// The process: carries orders out until there are no more.
///
/// # Errors
/// An order that makes no sense, or nobody to answer.
pub async fn serve() -> Result<(), Failed> {
    let client = client()?;
    // Read by a thread of its own, which ends with the process.
    let (read, mut orders) = mpsc::channel(1);
    std::thread::spawn(move || io::stdin().lines().try_for_each(|line| read.blocking_send(line)));
    let mut answers = io::stdout();
    let mut workers: BTreeMap<String, Worker> = BTreeMap::new();
    while let Some(line) = orders.recv().await {
        match serde_json::from_str::<Order>(&line?)? {
            Order::Send(stream) => match workers.get(&stream.name) {
                Some(worker) => drop(worker.stream.send_replace(Some(stream))),
                None => drop(workers.insert(stream.name.clone(), Worker::start(client.clone(), stream))),
            },
            Order::Stop(name) => {
                if let Some(worker) = workers.get_mut(&name) {
                    worker.stop().await?;
                }
            }
            Order::Tell => {}
        }
        let report: Report = workers.iter().map(|(name, worker)| (name.clone(), lock(&worker.count).clone())).collect();
        writeln!(answers, "{}", serde_json::to_string(&report)?)?;
    }
    Ok(())
}

/// What sends a stream's requests.
struct Worker {
    /// None ends it.
    stream: watch::Sender<Option<Stream>>,
    count: Arc<Mutex<Count>>,
    task: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(client: reqwest::Client, stream: Stream) -> Self {
        let count = Arc::<Mutex<Count>>::default();
        let (stream, seen) = watch::channel(Some(stream));
        let task = Some(tokio::spawn(work(client, seen, Arc::clone(&count))));
        Self { stream, count, task }
    }

    async fn stop(&mut self) -> Result<(), Failed> {
        self.stream.send_replace(None);
        match self.task.take() {
            Some(task) => Ok(task.await?),
            None => Ok(()),
        }
    }
}

async fn work(client: reqwest::Client, stream: watch::Receiver<Option<Stream>>, count: Arc<Mutex<Count>>) {
    loop {
        let Some(sent) = stream.borrow().clone() else { return };
        let began = Instant::now();
        let answer = sent.ask(&client).await;
        let took = began.elapsed();
        let is_right_now =
            |message: &String| stream.borrow().as_ref().is_some_and(|stream| stream.right.contains(message));
        {
            let mut count = lock(&count);
            count.slowest = count.slowest.max(took);
            match answer {
                Ok(message) if sent.right.contains(&message) || is_right_now(&message) => count.right += 1,
                Ok(message) => {
                    count.misrouted += 1;
                    count.complain(format!("{message:?} instead of {:?}", sent.right));
                }
                Err(failed) => {
                    count.failed += 1;
                    count.complain(format!("after {took:?}: {failed}"));
                }
            }
        }
        tokio::time::sleep(sent.pause).await;
    }
}

fn lock(count: &Mutex<Count>) -> MutexGuard<'_, Count> {
    count.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that puts load on gateways. Dropping it kills it.
#[derive(Debug)]
pub struct Load {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    streams: BTreeMap<String, Stream>,
}

impl Load {
    /// Starts `PROGRAM load`, with nothing to do yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path) -> Result<Self, Failed> {
        let mut command = Command::new(program);
        command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failed("the load has no standard input or output".into()));
        };
        Ok(Self { child, orders, answers: BufReader::new(answers).lines(), streams: BTreeMap::new() })
    }

    /// The streams that are sent.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// Sends a stream of requests from now on.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn send(&mut self, stream: Stream) -> Result<(), Failed> {
        self.streams.insert(stream.name.clone(), stream.clone());
        self.order(&Order::Send(stream)).await.map(drop)
    }

    /// Changes a stream: every request after this is sent so, and its answer judged so.
    ///
    /// # Errors
    /// When there is no such stream, or the process has ended.
    pub async fn change(&mut self, name: &str, change: impl FnOnce(&mut Stream)) -> Result<(), Failed> {
        let stream = self.streams.get_mut(name).ok_or_else(|| Failed(format!("there is no stream {name}")))?;
        change(stream);
        let order = Order::Send(stream.clone());
        self.order(&order).await.map(drop)
    }

    /// Ends a stream, after the answer to its last request.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn stop(&mut self, name: &str) -> Result<(), Failed> {
        self.streams.remove(name);
        self.order(&Order::Stop(name.into())).await.map(drop)
    }

    /// What was counted so far, also of streams that have ended.
    ///
    /// # Errors
    /// When the process has ended.
    pub async fn report(&mut self) -> Result<Report, Failed> {
        self.order(&Order::Tell).await
    }

    /// Ends every stream and the process, and answers what was counted.
    ///
    /// # Errors
    /// When the process ended badly.
    pub async fn end(mut self) -> Result<Report, Failed> {
        for name in std::mem::take(&mut self.streams).into_keys() {
            self.stop(&name).await?;
        }
        let report = self.report().await?;
        drop(self.orders);
        let status = self.child.wait().await?;
        if status.success() { Ok(report) } else { Err(Failed(format!("the load ended with {status}"))) }
    }

    async fn order(&mut self, order: &Order) -> Result<Report, Failed> {
        self.orders.write_all((serde_json::to_string(order)? + "\n").as_bytes()).await?;
        self.orders.flush().await?;
        let answer = self.answers.next_line().await?.ok_or_else(|| Failed("the load has ended".into()))?;
        Ok(serde_json::from_str(&answer)?)
    }
}
