//! The patch on every way of writing, judged by the real PHP.

use std::collections::BTreeMap;

use sdp_gateway::php::{ConfigFile, PhpError, Unreplaceable};

use crate::judge;

const NEW: &str = "http://127.0.0.1:9001/it's\\here";

fn urls(services: &[&str]) -> BTreeMap<String, String> {
    services.iter().map(|service| ((*service).to_owned(), NEW.to_owned())).collect()
}

/// Overrides `shop` in `before` and checks with PHP that this and nothing else changed.
#[track_caller]
fn overrides_shop(before: &[u8]) -> Vec<u8> {
    let file = ConfigFile::parse(before).expect("a file that parses");
    let after = file.patched(&urls(&["shop"])).expect("a patch");
    let old = judge::values(before);
    let mut expected = old.clone();
    let changed: Vec<_> = expected.iter_mut().filter(|(path, _)| judge::set_at(path, "shop").is_some()).collect();
    assert!(!changed.is_empty(), "PHP sees no shop_url in {old:?}");
    for (_, value) in changed {
        *value = judge::hex(NEW);
    }
    assert_eq!(judge::values(&after), expected, "{}", String::from_utf8_lossy(&after));
    assert!(judge::lints(&after));
    // Put back, the bytes are the committed ones: the patch of the original with nothing overridden.
    assert_eq!(file.patched(&BTreeMap::new()).as_deref(), Ok(before));
    chooses_shop(&file, &old, &expected);
    after
}

/// Wraps the values of `file` and checks with PHP that requests without a key see the old values, and those with the
/// key the overridden one if it can be chosen at all.
#[track_caller]
fn chooses_shop(file: &ConfigFile, old: &judge::Values, overridden: &judge::Values) {
    let wrapped = file.wrapped(judge::PROGRAM_PATH, &BTreeMap::new()).expect("a wrapped file");
    assert!(judge::lints(&wrapped), "{}", String::from_utf8_lossy(&wrapped));
    let again = ConfigFile::parse(wrapped.as_slice()).expect("a file that parses");
    assert_eq!(String::from_utf8_lossy(&again.unwrapped()), String::from_utf8_lossy(file.bytes()));
    assert_eq!(again.wrapped(judge::PROGRAM_PATH, &BTreeMap::new()).as_ref(), Ok(&wrapped), "wrapped once");
    let routable = file.routable("shop").is_ok();
    assert_eq!(again.entry("shop").map(|entry| entry.is_wrapped()), Ok(routable));
    let table = BTreeMap::from([("pay-22222222".to_owned(), urls(&["shop"]))]);
    let requests = [(wrapped.as_slice(), None), (&wrapped, Some("pay-22222222")), (&wrapped, Some("pay-33333333"))];
    let seen = judge::evaluate_requests(&requests, &table);
    let shown = String::from_utf8_lossy(&wrapped);
    assert_eq!(seen[0].as_ref(), Some(old), "without a key\n{shown}");
    assert_eq!(seen[1].as_ref(), Some(if routable { overridden } else { old }), "with the key\n{shown}");
    assert_eq!(seen[2].as_ref(), Some(old), "with another key\n{shown}");
}

#[test]
fn only_the_value_changes() {
    let before = b"<?php\n// shop_url => 'x'\nreturn [\n  'shop_url'  =>  'http://old' , # keep\n];\n";
    let after = overrides_shop(before);
    let expected = r"<?php
// shop_url => 'x'
return [
  'shop_url'  =>  'http://127.0.0.1:9001/it\'s\\here' , # keep
];
";
    assert_eq!(String::from_utf8_lossy(&after), expected);
}

#[test]
fn every_way_of_writing_an_entry_is_understood() {
    for text in [
        // Returned arrays.
        "<?php return ['shop_url' => 'http://old', 'mail_url' => 'http://mail'];",
        "<?php return array('shop_url' => \"http://old\",);",
        "<?php return ['mail_url' => 'm', 'shop_url' => 'http://old'] + ['x' => 1];",
        "<?php return array_merge(['a' => 1], ['services' => ['shop_url' => 'http://old']]);",
        "<?php $config = ['shop_url' => 'http://old']; return $config;",
        // Assignments.
        "<?php $config['shop_url'] = 'http://old';",
        "<?php $config[\"shop_url\"]='http://old' ;",
        "<?php $config['services']['shop_url'] = 'http://old';",
        "<?php $config['services'] = array('shop_url' => 'http://old', 'mail_url' => 'http://mail');",
        "<?php $config = array(); $config['services'] = array('deep' => array('shop_url' => 'o'));",
        "<?php if (true) { $config['shop_url'] = 'http://old'; } else { $config['x'] = 1; }",
        "<?php $config['shop_url'] = 'http://old' or die('no');",
        "<?php defined('BASEPATH') OR exit('No direct script access allowed');\n$config['shop_url'] = 'o';",
        // Constants.
        "<?php define('shop_url', 'http://old');",
        "<?php define('SHOP_URL', 'http://old');",
        "<?php \\DEFINE(\"SHOP_URL\", 'http://old', false);",
        "<?php defined('SHOP_URL') or define('SHOP_URL', 'http://old');",
        "<?php const SHOP_URL = 'http://old', MAIL_URL = 'http://mail';",
        "<?php const shop_url = 'http://old';",
        // Values.
        "<?php $config['shop_url'] = \"a\\x41\\u{e9}\\n\\\"b\";",
        "<?php $config['shop_url'] = 'it\\'s';",
        "<?php $config['shop_url'] = <<<EOT\n  http://old\n  EOT . 'x';",
        "<?php $config['shop_url'] = <<<\"EOT\"\n  http://{$config['x']}\n  EOT;\n$config['mail_url'] = 'm';",
        "<?php return ['shop_url' => <<<'EOT'\nhttp://$old\nEOT, 'mail_url' => 'm'];",
        "<?php $config['shop_url'] = getenv('NO_SUCH_SHOP') ?: 'http://old';",
        "<?php $config['shop_url'] = BASE . '/shop';",
        "<?php $config['shop_url'] = BASE . '/' . implode('.', ['a', 'b'])  /* why */ ;",
        "<?php $config['shop_url'] = ('http://old');",
        "<?php $config['shop_url'] = sprintf('http://%s', isset($_SERVER['X']) ? 'a' : 'b');",
        "<?php $config['shop_url'] = $_SERVER['NO_SUCH'] ?? 'http://old';",
        "<?php $config['shop_url'] = (function () { return 'http://old'; })();",
        "<?php $config['shop_url'] = null;",
        "<?php $config['shop_url'] = 42;",
        // Keys.
        "<?php return [\"shop\\x5furl\" => 'http://old'];",
        "<?php return [('shop_url') => 'http://old'];",
        // Around.
        "\u{feff}<?php\r\nreturn [\r\n\t'shop_url' => 'http://old',\r\n];\r\n",
        "#!/usr/bin/php\n<?php $config['shop_url'] = 'http://old' ?>\n",
        "<?php\n/* é */ $é = 'ü'; $config['shop_url'] = 'http://öld'; // ñ",
        "<?php $config['shop_url'] = 'http://old'; __halt_compiler(); <? (((( 'shop_url' =>",
        "<?php function urls() { return ['shop_url' => 'http://old']; } return urls();",
        // Evaluated before or without what stands earlier.
        "<?php $all = urls(); $config['mail_url'] = 'm'; function urls() { return ['shop_url' => 'http://old']; }",
        "<?php $f = fn() => ['mail_url' => 'm']; $config['shop_url'] = 'http://old';",
        "<?php if (getenv('NO_SUCH')) { $config['mail_url'] = 'm'; } $config['shop_url'] = 'http://old';",
        "<?php getenv('NO_SUCH') and define('MAIL_URL', 'm'); $config['shop_url'] = 'http://old';",
        "<?php goto end; $config['mail_url'] = 'm'; end: $config['shop_url'] = 'http://old';",
        "<?php false ? $c['mail_url'] = 'm' : 0; $config['shop_url'] = 'http://old';",
        "<?php foreach ([] as $x) { $config['mail_url'] = 'm'; } $config['shop_url'] = 'http://old';",
        "<?php try { $c['mail_url'] = intdiv(1, 0); } catch (Error $e) { $c['shop_url'] = 'http://old'; unset($e); }",
        "<?php $c['x'] = 1; $c['x'] ??= ['mail_url' => 'm']; $c['shop_url'] = 'http://old';",
        "<?php switch (1) { case 2: $c['mail_url'] = 'm'; default: $c['shop_url'] = 'http://old'; }",
        "<?php $x = null; $x?->f(['mail_url' => 'm']); $c['shop_url'] = 'http://old'; unset($x);",
        "<?php $c['x'] = $c['x'] ?? ['mail_url' => 'm'] ?? 1; $c['shop_url'] = 'http://old';",
        "<?php $c['m'] = ['mail_url' => 'm']; if (true) { $c['shop_url'] = 'http://old'; }",
        "<?php $c['m'] = ['mail_url' => 'm', 'shop_url' => 'http://old'];",
        "<?php namespace A { $c['mail_url'] = 'm'; } namespace B { $c['shop_url'] = 'http://old'; }",
    ] {
        overrides_shop(text.as_bytes());
    }
}

#[test]
fn what_php_evaluates_before_it_knows_the_request_is_not_wrapped() {
    for text in [
        "<?php const SHOP_URL = 'http://old';",
        "<?php const ALL = ['shop_url' => 'http://old'];",
        "<?php class C { const ALL = ['shop_url' => 'http://old']; }",
        "<?php class C { public $all = ['shop_url' => 'http://old']; }",
        "<?php class C { public static $all = ['deep' => array('shop_url' => 'http://old')]; }",
        "<?php class C { function f($all = ['shop_url' => 'http://old']) {} }",
        "<?php function f($all = ['shop_url' => 'http://old']) {}",
        "<?php $f = fn($all = ['shop_url' => 'http://old']) => $all;",
        "<?php function f() { static $all = ['shop_url' => 'http://old']; }",
        "<?php #[A(['shop_url' => 'http://old'])] class C {}",
        "<?php enum E: string { const ALL = ['shop_url' => 'http://old']; case A = 'a'; }",
        "<?php interface I { const ALL = ['shop_url' => 'http://old']; }",
    ] {
        let file = ConfigFile::parse(text).expect("a file that parses");
        let refused = PhpError::ConstantExpression { service: "shop".into(), line: 1 };
        assert_eq!(file.routable("shop"), Err(refused), "{text}");
        assert_eq!(file.wrapped("/x.php", &BTreeMap::new()).as_deref(), Ok(text.as_bytes()));
        // Overridden for every request it can be.
        let overridden = file.wrapped("/x.php", &urls(&["shop"])).expect("a patch");
        assert_eq!(Ok(overridden), file.patched(&urls(&["shop"])));
    }
    for text in [
        "<?php class C { function f() { return ['shop_url' => 'http://old']; } }",
        "<?php class C { const X = 1; function f($a = 1) { $this->c['shop_url'] = 'http://old'; } }",
        "<?php function f($a = [1]) { static $b = 2; return ['shop_url' => 'http://old']; }",
        "<?php $x = new class { public $a = 1; function f() { return ['shop_url' => 'http://old']; } };",
        "<?php enum E { case A; function f() { return ['shop_url' => 'http://old']; } }",
    ] {
        let file = ConfigFile::parse(text).expect("a file that parses");
        assert!(file.routable("shop").is_ok(), "{text}");
        let wrapped = file.wrapped("/x.php", &BTreeMap::new()).expect("a wrapped file");
        assert!(judge::lints(&wrapped), "{}", String::from_utf8_lossy(&wrapped));
    }
}

#[test]
fn one_wrapper_reads_the_table_where_it_is_certain_to_come_first() {
    let readers = |text: &str| {
        let file = ConfigFile::parse(text).expect("a file that parses");
        let wrapped = file.wrapped("/x.php", &BTreeMap::new()).expect("a wrapped file");
        String::from_utf8(wrapped).expect("text").matches("include").count()
    };
    let list: String = (0..50).map(|at| format!("$c['s{at}_url'] = 'http://s{at}';\n")).collect();
    assert_eq!(readers(&format!("<?php\n{list}")), 1);
    assert_eq!(readers("<?php return ['a' => ['a_url' => 'a', 'b_url' => 'b'], 'c_url' => 'c'];"), 1);
    assert_eq!(readers("<?php define('A_URL', 'a'); define('B_URL', 'b'); if (X) { $c['c_url'] = 'c'; }"), 1);
    assert_eq!(readers("<?php if (X) { $c['c_url'] = 'c'; } define('A_URL', 'a'); define('B_URL', 'b');"), 2);
    assert_eq!(readers("<?php $c['a_url'] = 'a'; function f() { return ['b_url' => 'b', 'c_url' => 'c']; }"), 3);
    assert_eq!(readers("<?php goto x; $c['a_url'] = 'a'; x: $c['b_url'] = 'b';"), 2);
}

#[test]
fn what_looks_like_a_wrapper_and_is_none_stays_a_value() {
    let file = ConfigFile::parse("<?php $config['shop_url'] = 'http://old';").expect("a file that parses");
    let wrapped = file.wrapped("/../.sdp/request.php", &BTreeMap::new()).expect("a wrapped file");
    let wrapped = String::from_utf8(wrapped).expect("text");
    let is_wrapped =
        |text: &str| ConfigFile::parse(text).expect("a file that parses").entry("shop").expect("an entry").is_wrapped();
    assert!(is_wrapped(&wrapped));
    for (from, to) in [
        ("['shop']", "['mail']"),
        ("request.php'", "request.php' . ''"),
        ("'http://old'))", "'http://old') )"),
        ("'http://old'))", "'a') . ('b'))"),
        ("SDP_ROUTES :", "SDP_ROUTES: "),
    ] {
        assert!(wrapped.contains(from), "{from} in {wrapped}");
        assert!(!is_wrapped(&wrapped.replace(from, to)), "{to}");
    }
}

#[test]
fn a_file_that_was_committed_with_wrappers_keeps_them() {
    let plain = ConfigFile::parse("<?php $c['shop_url'] = 'http://old'; $c['mail_url'] = 'm';").expect("a file");
    let committed = plain.wrapped("/x.php", &BTreeMap::new()).expect("a wrapped file");
    let file = ConfigFile::parse(committed.as_slice()).expect("a file that parses");
    assert_eq!(file.wrapped("/x.php", &BTreeMap::new()).as_ref(), Ok(&committed));
    assert_eq!(file.patched(&BTreeMap::new()).as_ref(), Ok(&committed));
    let overridden = file.patched(&urls(&["shop"])).expect("a patch");
    let overridden = ConfigFile::parse(overridden).expect("a file that parses");
    assert_eq!(overridden.entry("shop").map(|entry| entry.literal()), Ok(Some(NEW)));
    assert_eq!(overridden.entry("mail").map(|entry| entry.literal()), Ok(Some("m")));
}

#[test]
fn bytes_that_are_not_utf8_survive() {
    let before = b"<?php // \xe9t\xe9\n$a = '\xff\xfe'; $config['shop_url'] = 'http://\xe9';\n$b = \"\xe9{$a}\";";
    let after = overrides_shop(before);
    assert!(after.starts_with(b"<?php // \xe9t\xe9\n$a = '\xff\xfe'; "));
}

#[test]
fn keys_in_comments_strings_and_reads_are_not_entries() {
    let text = r#"<?php
// $config['shop_url'] = 'a';
# 'shop_url' => 'a'
/* define('shop_url', 'a'); */
/** const SHOP_URL = 'a'; */
$text = "'shop_url' => 'a'";
$text = '$config["shop_url"] = 1';
$text = <<<E
['shop_url' => 'a']
E;
$text = <<<'E'
$config['shop_url'] = 'a';
E;
$read = $config['shop_url'] ?? isset($config['shop_url']);
['shop_url' => $taken] = ['x' => 1];
foreach ([] as ['shop_url' => $taken]) {}
$config[$shop . '_url'] = 'a';
$config['SHOP_URL'] = 'a';
$config['shop_url_old'] = 'a';
$config['_url'] = 'a';
$config['shop_url'] = ['this is a group'];
other('SHOP_URL', 'a');
?>
$config['shop_url'] = 'a';
"#;
    let file = ConfigFile::parse(text).expect("a file that parses");
    assert_eq!(file.entries().count(), 0, "{:?}", file.entries().collect::<Vec<_>>());
    assert_eq!(file.patched(&urls(&["shop"])), Err(PhpError::Absent { service: "shop".into() }));
}

#[test]
fn literal_values_are_decoded() {
    let text = "<?php return ['a_url' => 'it\\'s', 'b_url' => \"\\x41\\t\", 'c_url' => 'é\\\\', \
                'd_url' => <<<E\n  x\n  y\n  E, 'e_url' => BASE . 'x', 'f_url' => \"$a\"];";
    let file = ConfigFile::parse(text).expect("a file that parses");
    let literals: Vec<_> = file.entries().map(|e| (e.service(), e.literal())).collect();
    assert_eq!(
        literals,
        [("a", Some("it's")), ("b", Some("A\t")), ("c", Some("é\\")), ("d", Some("x\ny")), ("e", None), ("f", None)]
    );
    let sources: Vec<_> = file.entries().map(|e| String::from_utf8_lossy(file.source(e))).collect();
    assert_eq!(sources[4], "BASE . 'x'");
    assert_eq!(file.entries().map(|e| e.line()).collect::<Vec<_>>(), [1, 1, 1, 1, 4, 4]);
}

#[test]
fn an_exact_key_hides_the_constant_it_is_made_from() {
    let text = "<?php define('SHOP_URL', 'http://old'); $config['shop_url'] = SHOP_URL;";
    let patched = ConfigFile::parse(text).and_then(|file| file.patched(&urls(&["shop"])));
    let patched = String::from_utf8(patched.expect("a patch")).expect("text");
    assert_eq!(
        patched,
        r"<?php define('SHOP_URL', 'http://old'); $config['shop_url'] = 'http://127.0.0.1:9001/it\'s\\here';"
    );
}

#[test]
fn a_duplicate_is_an_error_for_its_own_service_only() {
    let text = "<?php\n$config['shop_url'] = 'a';\n$config['mail_url'] = 'm';\n\n$config['shop_url'] = 'b';";
    let file = ConfigFile::parse(text).expect("a file that parses");
    assert_eq!(
        file.patched(&urls(&["shop"])),
        Err(PhpError::Duplicate { service: "shop".into(), first: 2, second: 5 })
    );
    assert!(file.patched(&urls(&["mail"])).is_ok());
}

#[test]
fn entries_whose_replacement_would_not_hold_are_refused() {
    for (text, why) in [
        ("<?php $config['shop_url'] .= '/x';", Unreplaceable::CompoundAssignment),
        ("<?php $config['shop_url'] ??= 'http://old';", Unreplaceable::CompoundAssignment),
        ("<?php $config['shop_url'] = &$other;", Unreplaceable::Reference),
        ("<?php return ['shop_url' => &$other];", Unreplaceable::Reference),
        ("<?php $c['shop_url'] = $c['mail_url'] = 'http://both';", Unreplaceable::Entangled),
        ("<?php $c['mail_url'] = $c['shop_url'] = 'http://both';", Unreplaceable::Entangled),
    ] {
        let file = ConfigFile::parse(text).expect("a file that parses");
        assert_eq!(
            file.patched(&urls(&["shop"])),
            Err(PhpError::Unreplaceable { service: "shop".into(), line: 1, why }),
            "{text}"
        );
    }
}

#[test]
fn a_broken_file_is_refused_with_the_line() {
    let line = |text: &str| match ConfigFile::parse(text) {
        Err(PhpError::Syntax { line, .. }) => line,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(line("<?php\nreturn [\n 'shop_url' => 'a'\n 'mail_url' => 'b',\n];"), 4);
    assert_eq!(line("<?php\n\n$config['shop_url'] = ;"), 3);
    assert_eq!(line("<?php\n$a = 'never closed;\n"), 2);
    assert!(matches!(ConfigFile::parse("<? $config['shop_url'] = 'a';"), Err(PhpError::ShortTag { line: 1 })));
}

#[test]
fn absurd_nesting_and_chains_are_refused_or_read_but_never_crash() {
    let many = 60_000;
    let deep = |open: &str, close: &str| format!("<?php return {}1{};", open.repeat(many), close.repeat(many));
    for text in [
        deep("[", "]"),
        deep("(", ")"),
        deep("!", ""),
        deep("- ", ""),
        deep("(int)", ""),
        deep("@", ""),
        deep("", " ?: 1"),
        deep("$a=", ""),
        deep("1 ?? ", ""),
        deep("fn() => ", ""),
        deep("new ", ""),
        deep("", ".'a'"),
        deep("1 . ", ""),
        deep("2 ** ", ""),
        format!("<?php $a{} = 1;", "[0]".repeat(many)),
        format!("<?php $a{};", "->b".repeat(many)),
        format!("<?php f{};", "()".repeat(many)),
        format!("<?php {}", "if (1) ".repeat(many)),
        format!("<?php {}", "if (1) {} else ".repeat(many)),
        format!("<?php {}", "{".repeat(many)),
        format!("<?php $a = \"{}", "{$a[\"".repeat(many)),
        format!("<?php $a = {}a;", "$".repeat(many)),
        format!("<?php function f({}int $a) {{}}", "?".repeat(many)),
    ] {
        // Either answer is fine; that there is one is the point.
        let _ = ConfigFile::parse(text).map(|file| file.patched(&urls(&["shop"])));
    }
    let chain = format!("<?php $config['shop_url'] = 'a'{};", ".'b'".repeat(many));
    assert!(ConfigFile::parse(chain).is_ok_and(|file| file.patched(&urls(&["shop"])).is_ok()));
    assert!(matches!(ConfigFile::parse("x".repeat(2 << 20)), Err(PhpError::TooLarge { .. })));
}
