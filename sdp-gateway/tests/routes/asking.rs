//! Asking a real gateway, as a client would.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Client;
use sdp_gateway::GatewayConfig;
use serde::Deserialize;
use url::Url;

use crate::fixture::Gateway;

pub(crate) const THREE: &str = "<?php\n$config['shop_url'] = 'http://shop';\n$config['mail_url'] = rtrim('http://mail/', '/');\n\
                     $config['pay_url'] = getenv('NO_SUCH') ?: 'http://pay';\n";

/// A cache that is on, and never looks whether a file has changed.
pub(crate) const OPCACHE_BLIND: [&str; 3] =
    ["opcache.enable=1", "opcache.validate_timestamps=0", "opcache.file_update_protection=0"];

pub(crate) const OPCACHE_OFF: [&str; 1] = ["opcache.enable=0"];

/// What the gateway's program answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) config: BTreeMap<String, String>,
    told: Vec<String>,
    pub(crate) headers: Option<Vec<String>>,
    #[serde(skip)]
    pub(crate) route: Option<String>,
}

impl Answer {
    pub(crate) fn shop(&self) -> &str {
        &self.config["shop_url"]
    }
}

/// A client whose every request is on a connection of its own.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(20)).build().unwrap()
}

pub(crate) async fn get(client: &Client, url: &Url, headers: &[(&str, &[u8])]) -> Answer {
    let mut request = client.get(url.clone());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let route = response.headers().get("x-sdp-route").map(|value| value.to_str().unwrap().to_owned());
    let body = response.bytes().await.unwrap();
    let answer: Answer = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error}: {headers:?}: {}", String::from_utf8_lossy(&body)));
    assert_eq!(answer.told, [""; 0], "{headers:?}");
    Answer { route, ..answer }
}

pub(crate) fn settings(gateway: &Gateway, url: &Url) -> GatewayConfig {
    GatewayConfig { url: Some(url.clone()), ..gateway.settings() }
}
