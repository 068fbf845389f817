//! Every key of both daemons' configurations is where an operator looks for it.

use std::collections::BTreeSet;

use sdp_agent::AgentConfig;
use sdp_core::{config::Layers, testing::config_keys};
use sdp_server::ServerConfig;

const SERVER_FILE: &str = include_str!("../../sdp-server/packaging/sdp-server.toml");
const AGENT_FILE: &str = include_str!("../../sdp-agent/packaging/sdp-agent.toml");

/// Keys that no operator writes.
const NOT_WRITTEN: [&str; 2] = [
    // The agent takes `deployer.publish`.
    "gateway.host",
    // Of gateways that sandboxes bring; an agent's configuration refuses it.
    "gateway.sandbox",
];

/// A packaged file with everything in it that it has commented out.
fn whole(file: &str) -> String {
    let is_key = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.is_empty() && !key.contains(' '))
    };
    let lines = file.lines().map(|line| match line.strip_prefix('#') {
        Some(commented) if is_key(commented) => commented,
        _ => line,
    });
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// The dotted keys of a text in TOML.
fn keys_of(table: &toml::Table, above: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{above}{key}");
        match value {
            toml::Value::Table(inner) => keys_of(inner, &format!("{path}."), keys),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                items.iter().filter_map(toml::Value::as_table).for_each(|it| keys_of(it, &format!("{path}."), keys));
            }
            _ => {}
        }
        keys.insert(path);
    }
}

fn keys_in(file: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let table = whole(file).parse().unwrap_or_else(|error| panic!("with everything in it: {error}"));
    keys_of(&table, "", &mut keys);
    keys
}

fn missing(keys: &BTreeSet<String>, has: impl Fn(&str) -> bool) -> Vec<&String> {
    keys.iter().filter(|key| !NOT_WRITTEN.contains(&key.as_str()) && !has(key)).collect()
}

#[test]
fn the_packaged_files_have_every_key_and_are_valid_with_all_of_them() {
    let keys = config_keys::<ServerConfig>();
    assert!(keys.len() > 40, "{keys:?}");
    let found = keys_in(SERVER_FILE);
    assert_eq!(missing(&keys, |key| found.contains(key)), Vec::<&String>::new());
    let text = whole(SERVER_FILE);
    ServerConfig::load(Layers::new().file("sdp-server.toml", text), Vec::new(), &[])
        .unwrap_or_else(|it| panic!("{it}"));

    let keys = config_keys::<AgentConfig>();
    assert!(keys.len() > 40, "{keys:?}");
    let found = keys_in(AGENT_FILE);
    // Of keys that exclude one another, a comment shows the others.
    let shown = |key: &str| {
        let (_, last) = key.rsplit_once('.').unwrap_or_default();
        AGENT_FILE.lines().any(|line| line.starts_with("# ") && line.contains(&format!("{{ {last} = ")))
    };
    assert_eq!(missing(&keys, |key| found.contains(key) || shown(key)), Vec::<&String>::new());
    // The gateway's repo is another one.
    let text = whole(AGENT_FILE).replace("repo = \"erangel-ocean\"", "repo = \"eredar\"");
    AgentConfig::load(Layers::new().file("sdp-agent.toml", text), Vec::new(), &[]).unwrap_or_else(|it| panic!("{it}"));
}

#[test]
fn what_the_packaged_server_file_comments_out_is_the_default() {
    let said = ServerConfig::load(Layers::new().file("sdp-server.toml", SERVER_FILE), Vec::new(), &[]);
    let said = format!("{:?}", said.unwrap_or_else(|it| panic!("{it}")));
    assert_eq!(said, format!("{:?}", ServerConfig::default()));
}

#[test]
fn the_readmes_list_every_key() {
    for (keys, readme, name) in [
        (config_keys::<ServerConfig>(), include_str!("../../sdp-server/README.md"), "sdp-server"),
        (config_keys::<AgentConfig>(), include_str!("../../sdp-agent/README.md"), "sdp-agent"),
    ] {
        let listed = |key: &str| readme.contains(&format!("`{key}`"));
        assert_eq!(missing(&keys, listed), Vec::<&String>::new(), "{name}/README.md does not list these");
    }
}

#[test]
fn help_shows_the_packaged_files() {
    use clap::CommandFactory;
    let help = |command: clap::Command| command.term_width(0).render_long_help().to_string();
    assert!(help(sdp_server::cli::Cli::command()).contains(SERVER_FILE.trim_end()));
    assert!(help(sdp_agent::cli::Cli::command()).contains(AGENT_FILE.trim_end()));
}
