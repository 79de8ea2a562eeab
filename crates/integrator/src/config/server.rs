//! `[server]`: how this process answers.

use std::{fs, num::NonZeroUsize, path::PathBuf, time::Duration};

use serde::Deserialize;
use tower_mesh_core::Priority;
use tower_mesh_http::server::BearerTokens;

use super::{ConfigError, value};

/// `[server]`
///
/// There is no key for the token itself, as there is none for Consul's.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerConfig {
    #[serde(deserialize_with = "value::time")]
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_in_flight: Option<NonZeroUsize>,
    pub(crate) adaptive: Option<bool>,
    #[serde(deserialize_with = "value::priority")]
    pub(crate) believe_priority: Option<Priority>,
    pub(crate) report_load: Option<bool>,
    token_env: Option<String>,
    token_file: Option<PathBuf>,
    pub(crate) grpc_services: Option<Vec<String>>,
}

impl ServerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let at = |key: &str, what: &str| Err(ConfigError::at(&format!("server.{key}"), what));
        if self.token_env.is_some() && self.token_file.is_some() {
            return at(
                "token_file",
                "the token comes from a file or from the environment",
            );
        }
        if self.token_env.as_ref().is_some_and(String::is_empty) {
            return at("token_env", "it is empty");
        }
        if let Some(file) = &self.token_file
            && file.file_name().is_none()
        {
            return at("token_file", "it names no file");
        }
        let names = self.grpc_services.iter().flatten();
        if names.clone().any(String::is_empty) {
            return at(
                "grpc_services",
                "a service has a name, such as \"shop.Orders\"",
            );
        }
        Ok(())
    }

    /// The token that callers have to show, if one is asked for.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or nobody could show it: a server that then let everybody in, or nobody, is not what was asked
    /// for.
    pub(crate) fn callers(&self) -> Result<Option<BearerTokens>, ConfigError> {
        let (key, token) = match (&self.token_env, &self.token_file) {
            (Some(name), _) => {
                let token = std::env::var(name)
                    .map_err(|_| format!("the environment has no {name:?}, or it is no text"));
                ("server.token_env", token)
            }
            (None, Some(file)) => {
                let token = fs::read_to_string(file)
                    .map_err(|error| format!("cannot read {}: {error}", file.display()));
                ("server.token_file", token)
            }
            (None, None) => return Ok(None),
        };
        let token = token.map_err(|what| ConfigError::at(key, what))?;
        let token = token.trim();
        // The error is about the token, so it must not say what it is.
        if tower_mesh_http::credentials::Token::bearer(token).is_err() {
            let what = "it holds no bearer token: letters, digits and -._~+/=, at most 8 KiB";
            return Err(ConfigError::at(key, what));
        }
        Ok(Some(BearerTokens::new().allow("token", token, [""; 0])))
    }
}
