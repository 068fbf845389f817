//! The real PHP as judge of configuration files: does it accept them, and what do they set?

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a file sets: where (`return/…`, `var/…`, `const/…`, keys in hex) to the value in hex.
pub(crate) type Values = BTreeMap<String, String>;

/// What chooses routes per request, as the gateway's files have it.
pub(crate) const PROGRAM: &str = include_str!("../../src/request.php");

/// Where [`evaluate_requests`] lays the program, from the judged files.
pub(crate) const PROGRAM_PATH: &str = "/.sdp/request.php";

/// PHP's answer for each file, in order: none when PHP refuses it. One PHP process for all.
pub(crate) fn evaluate(files: &[Vec<u8>]) -> Vec<Option<Values>> {
    evaluate_requests(&files.iter().map(|file| (file.as_slice(), None)).collect::<Vec<_>>(), &BTreeMap::new())
}

/// As [`evaluate`], each file for a request that may carry a key. `table` has each key's URLs, by service.
pub(crate) fn evaluate_requests(
    files: &[(&[u8], Option<&str>)],
    table: &BTreeMap<String, BTreeMap<String, String>>,
) -> Vec<Option<Values>> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join(".sdp")).expect("a directory for the table");
    fs::write(dir.path().join(".sdp/request.php"), PROGRAM).expect("the program");
    fs::write(dir.path().join(".sdp/routes.php"), written(table)).expect("the table");
    for (at, (bytes, key)) in files.iter().enumerate() {
        fs::write(dir.path().join(format!("{at:05}.php")), bytes).expect("a file to judge");
        if let Some(key) = key {
            fs::write(dir.path().join(format!("{at:05}.key")), key).expect("a key");
        }
    }
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/judge.php");
    let status = Command::new("php")
        .args(["-n", "-f"])
        .args([&judge, dir.path()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("`php` (Debian package php-cli) judges these tests");
    assert!(status.success(), "the judge itself failed: {status}");
    let verdict = fs::read(dir.path().join("verdict.json")).expect("the judge's verdict");
    let mut verdicts: BTreeMap<String, Option<Values>> =
        serde_json::from_slice(&verdict).expect("the judge's verdict as JSON");
    (0..files.len()).map(|at| verdicts.remove(&format!("{at:05}")).expect("a verdict for each file")).collect()
}

/// The table as PHP.
fn written(table: &BTreeMap<String, BTreeMap<String, String>>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let urls = |urls: &BTreeMap<String, String>| -> String {
        urls.iter().map(|(service, url)| format!("{} => {}, ", quoted(service), quoted(url))).collect()
    };
    let sandbox = |(key, of): (&String, _)| {
        format!("{} => ['name' => 'x', 'services' => [{}], 'line' => ''],\n", quoted(key), urls(of))
    };
    let sandboxes: String = table.iter().map(sandbox).collect();
    format!("<?php return ['version' => '1', 'line' => 'x', 'every' => [], 'sandboxes' => [{sandboxes}]];")
}

/// What one file sets; fails when PHP refuses it.
pub(crate) fn values(bytes: &[u8]) -> Values {
    evaluate(&[bytes.to_vec()]).remove(0).unwrap_or_else(|| panic!("PHP refuses:\n{}", String::from_utf8_lossy(bytes)))
}

/// Whether `php -l` accepts the file.
pub(crate) fn lints(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("judged.php");
    fs::write(&file, bytes).expect("a file to judge");
    Command::new("php")
        .args(["-n", "-l"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("`php` (Debian package php-cli) judges these tests")
        .success()
}

/// Text as the judge writes it.
pub(crate) fn hex(text: impl AsRef<[u8]>) -> String {
    text.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The path up to the key or constant that sets the URL of `service`, if the path leads through one.
pub(crate) fn set_at(path: &str, service: &str) -> Option<String> {
    let key = format!("{service}_url");
    let (exact, upper) = (hex(&key), hex(key.to_uppercase()));
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().position(|part| *part == exact || (parts[0] == "const" && *part == upper))?;
    Some(parts[..=at].join("/"))
}
