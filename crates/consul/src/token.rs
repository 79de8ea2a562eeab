//! The token that Consul's access control asks for. It is never printed.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderValue;

use crate::error::ConsulError;

/// Where the token comes from, and what it is. It has no `Debug` of its own.
#[derive(Clone, Default)]
pub(crate) struct Token {
    file: Option<Arc<PathBuf>>,
    value: Arc<Mutex<Option<HeaderValue>>>,
}

impl Token {
    pub(crate) fn value(text: &str) -> Result<Self, ConsulError> {
        Ok(Self {
            file: None,
            value: Arc::new(Mutex::new(header(text)?)),
        })
    }

    /// Reads the file; it is read again when Consul refuses what it said.
    pub(crate) fn file(path: PathBuf) -> Result<Self, ConsulError> {
        let token = Self {
            file: Some(Arc::new(path)),
            value: Arc::default(),
        };
        token.read()?;
        Ok(token)
    }

    /// What is sent, if anything: marked as sensitive, so that nobody prints it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.lock().clone()
    }

    /// Reads the file again, if it comes from one; whether it says something else now.
    pub(crate) fn is_renewed(&self) -> bool {
        self.read().unwrap_or(false)
    }

    fn read(&self) -> Result<bool, ConsulError> {
        let Some(path) = &self.file else {
            return Ok(false);
        };
        let text = fs::read_to_string(&**path).map_err(|error| {
            let message = format!("cannot read the token's file {}", path.display());
            ConsulError::refused(message).caused_by(error)
        })?;
        let new = header(text.trim())?;
        let old = std::mem::replace(&mut *self.lock(), new.clone());
        Ok(old != new)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn header(token: &str) -> Result<Option<HeaderValue>, ConsulError> {
    if token.is_empty() {
        return Ok(None);
    }
    // The error would be about the token, so it must not say what it is.
    let mut value = HeaderValue::from_str(token)
        .map_err(|_| ConsulError::refused("the token holds characters that no header can"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lock().is_some() {
            true => "a token",
            false => "no token",
        })
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    const CANARY: &str = "5ec2e7-canary";

    #[test]
    fn a_token_is_sent_and_never_printed() {
        let token = Token::value(CANARY).unwrap();
        let header = token.header().unwrap();
        assert_eq!(header.to_str().unwrap(), CANARY);
        assert!(!format!("{token:?} {header:?}").contains(CANARY));
        let error = Token::value(&format!("{CANARY}\n")).err().unwrap();
        assert!(!format!("{error} {error:?}").contains(CANARY));
        assert!(Token::value("").unwrap().header().is_none());
    }

    #[test]
    fn a_file_is_read_again_when_its_token_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{CANARY}\n")).unwrap();
        let token = Token::file(file.path().to_owned()).unwrap();
        assert_eq!(token.header().unwrap(), CANARY);
        assert!(!token.is_renewed(), "it says the same");
        fs::write(file.path(), "another").unwrap();
        assert!(token.is_renewed());
        assert_eq!(token.header().unwrap(), "another");
        drop(file);
        assert!(!token.is_renewed(), "what was read last stays");
        assert_eq!(token.header().unwrap(), "another");
    }
}
