//! Generated configurations in every style, and their mutants: the real PHP says what each sets, before the patch and
//! after it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sdp_gateway::php::ConfigFile;

use crate::judge;

/// Configurations judged together by one PHP process.
const BATCH: usize = 100;

/// A configuration, and the URLs to put into it.
#[derive(Debug, Clone)]
struct Case {
    text: Vec<u8>,
    urls: BTreeMap<String, String>,
}

/// How the file as a whole is written.
#[derive(Debug, Clone, Copy)]
enum Style {
    Returned,
    ReturnedOld,
    Assigned,
    AssignedNested,
    NestedArray,
    VariableArray,
    Defined,
    Constant,
}

/// PHP expressions for a service's value, valid where a constant expression is wanted if `constant`.
fn value(constant: bool) -> BoxedStrategy<Vec<u8>> {
    let host = "[a-z]{1,8}(\\.[a-z]{2,5})?(:[0-9]{2,5})?(/[a-z0-9]{0,6}){0,2}";
    let literal = prop_oneof![
        host.prop_map(|host| format!("'http://{host}'").into_bytes()),
        host.prop_map(|host| format!("'it\\'s \\\\ http://{host} \\n'").into_bytes()),
        host.prop_map(|host| format!("\"http://{host}\"").into_bytes()),
        host.prop_map(|host| format!("\"\\x68\\u{{e9}}\\t\\\"\\$x {{ }} http://{host}\"").into_bytes()),
        host.prop_map(|host| format!("<<<'EOT'\nhttp://{host}/$x\n'shop_url' => 1\nEOT").into_bytes()),
        host.prop_map(|host| format!("<<<EOT\n    http://{host}\n      x\n    EOT").into_bytes()),
        host.prop_map(|host| format!("'http://é.{host}'").into_bytes()),
        host.prop_map(|host| [b"'http://\xff\xfe.".as_slice(), host.as_bytes(), b"'"].concat()),
        host.prop_map(|host| format!("BASE . '/{host}'").into_bytes()),
        host.prop_map(|host| format!("('http://' . \"{host}\" /* why */ . '')").into_bytes()),
        host.prop_map(|host| format!("(1 > 2) ? 'a' : 'http://{host}'").into_bytes()),
        Just(b"null".to_vec()),
    ];
    if constant {
        return literal.boxed();
    }
    prop_oneof![
        8 => literal,
        1 => host.prop_map(|host| format!("getenv('NO_SUCH_VARIABLE') ?: 'http://{host}'").into_bytes()),
        1 => host.prop_map(|host| format!("$_SERVER['NO_SUCH'] ?? \"http://{host}\"").into_bytes()),
        1 => host.prop_map(|host| format!("sprintf('%s://%s', 'http', implode('.', ['{host}', 'x']))").into_bytes()),
        1 => host.prop_map(|host| format!("rtrim(\"http://{{$_SERVER['argc']}}/{host}\", '/')").into_bytes()),
        1 => host.prop_map(|host| format!("(function () {{ return 'http://{host}'; }})()").into_bytes()),
        1 => host.prop_map(|host| format!("(fn() => ['u' => 'http://{host}']['u'])()").into_bytes()),
    ]
    .boxed()
}

fn noise() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("// $config['a0_url'] = 'decoy'; 'a1_url' => 'decoy'\n"),
        Just("# define('A0_URL', 'decoy'); ?\n"),
        Just("/* 'a0_url' => 'decoy',\n const A1_URL = 'decoy'; */\n"),
        Just("/** it's \"a\" <<<EOT decoy */ "),
        Just("// \u{e9}\u{1F600}\n"),
        Just("\t \n\n"),
    ]
}

fn statement_noise() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("$text = \"'a0_url' => 'decoy'\";\n"),
        Just("$text = <<<EOT\n$\\config['a0_url'] = 'decoy';\nEOT;\n"),
        Just("if (!defined('NO')) { $other['a0'] = ['x' => [1, 2,]]; }\n"),
        Just("$read = false && $config['a0_url'] === 'x';\n"),
        Just("['a0_url' => $taken] = ['a0_url_' => 1];\n"),
        Just("?> <b>'a0_url' => 'decoy'</b>\n<?php\n"),
        Just(";;"),
    ]
}

fn entry(style: Style, service: &str, value: &[u8], quote: char, comment: &str) -> Vec<u8> {
    let upper = service.to_uppercase();
    let (before, after) = match style {
        Style::Returned | Style::ReturnedOld | Style::NestedArray | Style::VariableArray => {
            (format!("{comment}  {quote}{service}_url{quote}  => "), ",\n")
        }
        Style::Assigned => (format!("{comment}$config[{quote}{service}_url{quote}] = "), ";\n"),
        Style::AssignedNested => (format!("$config['services'][{quote}{service}_url{quote}]= {comment}"), " ;\n"),
        Style::Defined => (format!("{comment}define({quote}{upper}_URL{quote}, "), ") ;\n"),
        Style::Constant => (format!("{comment}const {upper}_URL ="), ";\n"),
    };
    [before.as_bytes(), value, after.as_bytes()].concat()
}

fn case() -> impl Strategy<Value = Case> {
    let style = prop::sample::select(vec![
        Style::Returned,
        Style::ReturnedOld,
        Style::Assigned,
        Style::AssignedNested,
        Style::NestedArray,
        Style::VariableArray,
        Style::Defined,
        Style::Constant,
    ]);
    let url = "http://[a-z0-9.]{1,12}(:[0-9]{1,5})?/[a-z'\\\\$\"{}?=&é]{0,8}";
    style.prop_flat_map(move |style| {
        let constant = matches!(style, Style::Constant);
        let one = (value(constant), prop::option::of(url), any::<bool>(), noise(), statement_noise());
        let around = (any::<bool>(), any::<bool>(), any::<bool>());
        (prop::collection::vec(one, 1..6), around).prop_map(move |(entries, (crlf, bom, closed))| {
            let list =
                matches!(style, Style::Returned | Style::ReturnedOld | Style::NestedArray | Style::VariableArray);
            let (open, close) = match style {
                Style::Returned => ("return [\n", "];"),
                Style::ReturnedOld => ("return array(\n", ");"),
                Style::NestedArray => ("$config['services'] = array('deep' => [\n", "],) + array();"),
                Style::VariableArray => ("$config = array('x' => 1, 'all' => array(\n", "));"),
                _ => ("", ""),
            };
            let mut text = if bom { b"\xef\xbb\xbf<?php\n".to_vec() } else { b"<?php\n".to_vec() };
            text.extend_from_slice(open.as_bytes());
            let mut urls = BTreeMap::new();
            for (at, (value, url, single, noise, statement)) in entries.iter().enumerate() {
                let service = format!("a{at}");
                if !list {
                    text.extend_from_slice(statement.as_bytes());
                }
                text.extend(entry(style, &service, value, if *single { '\'' } else { '"' }, noise));
                if let Some(url) = url {
                    urls.insert(service, url.clone());
                }
            }
            text.extend_from_slice(close.as_bytes());
            if closed {
                text.extend_from_slice(b"\n?>\n");
            }
            if crlf {
                text = text.iter().flat_map(|&b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] }).collect();
            }
            Case { text, urls }
        })
    })
}

fn expected(old: &judge::Values, urls: &BTreeMap<String, String>) -> judge::Values {
    let overridden =
        |path: &str| urls.iter().find_map(|(service, url)| Some((judge::set_at(path, service)?, judge::hex(url))));
    old.iter().map(|(path, value)| overridden(path).unwrap_or_else(|| (path.clone(), value.clone()))).collect()
}

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

#[test]
fn only_the_overridden_keys_change_and_clearing_restores_the_bytes() {
    let batches = prop::collection::vec(case(), BATCH);
    runner(4)
        .run(&batches, |cases| {
            let mut files = Vec::new();
            for Case { text, urls } in &cases {
                let file = ConfigFile::parse(text.as_slice())
                    .map_err(|e| TestCaseError::fail(format!("{e}\n{}", String::from_utf8_lossy(text))))?;
                let patched = file
                    .patched(urls)
                    .map_err(|e| TestCaseError::fail(format!("{e}\n{}", String::from_utf8_lossy(text))))?;
                // Clearing: the patch of the committed bytes with one override less, down to none.
                prop_assert_eq!(file.patched(&BTreeMap::new()), Ok(text.clone()));
                // The patched file has the same entries, so a table can be read from it.
                let again = ConfigFile::parse(patched.as_slice()).map_err(|e| TestCaseError::fail(e.to_string()))?;
                let lines: Vec<_> = again.entries().map(|entry| entry.service().to_owned()).collect();
                prop_assert_eq!(lines, file.entries().map(|e| e.service().to_owned()).collect::<Vec<_>>());
                files.push(text.clone());
                files.push(patched);
            }
            let verdicts = judge::evaluate(&files);
            for (case, pair) in cases.iter().zip(verdicts.chunks(2)) {
                let shown = String::from_utf8_lossy(&case.text);
                let Some(old) = &pair[0] else {
                    return Err(TestCaseError::fail(format!("the generated file is not PHP:\n{shown}")));
                };
                let Some(new) = &pair[1] else {
                    return Err(TestCaseError::fail(format!("the patched file is not PHP:\n{shown}\n{:?}", case.urls)));
                };
                let expected = expected(old, &case.urls);
                prop_assert_eq!(new, &expected, "{}", shown);
                for (service, url) in &case.urls {
                    let seen = new
                        .iter()
                        .any(|(path, value)| judge::set_at(path, service).is_some() && *value == judge::hex(url));
                    prop_assert!(seen, "PHP does not see {} in\n{}", service, shown);
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_wrapped_file_is_the_same_without_a_key_has_the_sandboxs_urls_with_it_and_unwraps_to_its_bytes() {
    let cases = prop::collection::vec(case(), BATCH);
    runner(2)
        .run(&cases, |cases| {
            let keys: Vec<String> = (0..cases.len()).map(|at| format!("case-{at:08}")).collect();
            let table = keys.iter().cloned().zip(cases.iter().map(|case| case.urls.clone())).collect();
            let mut files = Vec::new();
            for case in &cases {
                let file = ConfigFile::parse(case.text.as_slice()).expect("a file that parses");
                let wrapped = file.wrapped(judge::PROGRAM_PATH, &BTreeMap::new()).expect("a wrapped file");
                let again = ConfigFile::parse(wrapped.as_slice()).expect("a wrapped file that parses");
                prop_assert_eq!(again.unwrapped(), case.text.as_slice());
                let mut chosen = case.urls.clone();
                chosen.retain(|service, _| file.routable(service).is_ok());
                files.push((wrapped, chosen));
            }
            let requests: Vec<(&[u8], Option<&str>)> = cases
                .iter()
                .zip(&files)
                .zip(&keys)
                .flat_map(|((case, (wrapped, _)), key)| {
                    [(case.text.as_slice(), None), (wrapped, None), (wrapped, Some(key.as_str()))]
                })
                .collect();
            let verdicts = judge::evaluate_requests(&requests, &table);
            for ((wrapped, chosen), seen) in files.iter().zip(verdicts.chunks(3)) {
                let shown = String::from_utf8_lossy(wrapped);
                let Some(old) = &seen[0] else { continue };
                prop_assert_eq!(seen[1].as_ref(), Some(old), "without a key\n{}", shown);
                prop_assert_eq!(seen[2].as_ref(), Some(&expected(old, chosen)), "with the key\n{}", shown);
            }
            prop_assert!(verdicts.iter().flatten().count() > cases.len() * 2, "PHP refuses most of the corpus");
            Ok(())
        })
        .unwrap();
}

/// One byte or short stretch of `text` removed, doubled, replaced or inserted.
fn mutated(text: &[u8], at: usize, kind: u8, byte: u8) -> Vec<u8> {
    let at = at % text.len();
    let mut mutant = text.to_vec();
    match kind {
        0 => drop(mutant.remove(at)),
        1 => mutant.insert(at, text[at]),
        2 => mutant[at] = byte,
        3 => mutant.insert(at, byte),
        4 => mutant.truncate(at),
        _ => drop(mutant.drain(at..(at + 7).min(text.len()))),
    }
    mutant
}

#[test]
fn a_mutant_that_both_accept_is_patched_right_and_broken_ones_are_nearly_all_refused() {
    // No backtick: it would run a command.
    let byte = prop::sample::select(b"'\"\\;,()[]{}=>$<?#/*.a_0 \n\r\xff&:@-".to_vec());
    let mutants = prop::collection::vec((case(), any::<prop::sample::Index>(), 0u8..6, byte), 2 * BATCH);
    runner(2)
        .run(&mutants, |mutants| {
            let mut files = Vec::new();
            let mut patches = Vec::new();
            for (case, at, kind, byte) in &mutants {
                let text = mutated(&case.text, at.index(case.text.len()), *kind, *byte);
                // Neither a panic nor a wrong answer, whatever the text; a service may be gone or doubled now.
                let parsed = ConfigFile::parse(text.as_slice());
                let patched = parsed.as_ref().ok().and_then(|file| file.patched(&case.urls).ok());
                patches.push((parsed.err(), patched.is_some(), case.urls.clone()));
                files.push(patched.unwrap_or_else(|| text.clone()));
                files.push(text);
            }
            let verdicts = judge::evaluate(&files);
            let (mut broken, mut missed, mut sound, mut refused) = (0, 0, 0, 0);
            for (at, ((error, is_patched, urls), pair)) in patches.iter().zip(verdicts.chunks(2)).enumerate() {
                let shown = || String::from_utf8_lossy(&files[2 * at + 1]).into_owned();
                match (&pair[1], error) {
                    // Some parse and then fail when run, for want of a constant or function.
                    (None, None) if judge::lints(&files[2 * at + 1]) => {}
                    (None, None) => missed += 1,
                    (None, Some(_)) => broken += 1,
                    (Some(_), Some(_)) => refused += 1,
                    (Some(old), None) => {
                        sound += 1;
                        if *is_patched {
                            let expected = Some(expected(old, urls));
                            prop_assert_eq!(&pair[0], &expected, "{}", shown());
                        }
                    }
                }
            }
            prop_assert!(sound > 50 && broken > 50);
            prop_assert!(missed * 20 <= broken, "{} of {} broken files missed", missed, broken + missed);
            prop_assert!(refused * 20 <= sound, "{} of {} sound files refused", refused, sound + refused);
            Ok(())
        })
        .unwrap();
}
