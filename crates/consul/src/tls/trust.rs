//! Why an agent was not believed, or did not believe us.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as Tls};

use crate::{
    address::Address,
    error::{ConsulError, Distrust, ErrorKind},
};

/// What `error`, or what caused it, means for a connection to the agent at `address`.
pub(crate) fn explained(address: &Address, error: &(dyn Error + 'static)) -> ConsulError {
    let Some(tls) = cause(error) else {
        let message = format!("cannot connect to the agent at {address} by TLS");
        return ConsulError::unavailable(message);
    };
    let Some(distrust) = distrust(tls) else {
        let message = match tls {
            Tls::InvalidMessage(_) => format!("what answers at {address} does not speak TLS"),
            _ => format!("cannot agree on TLS with the agent at {address}"),
        };
        return ConsulError::unavailable(message);
    };
    let why = match distrust {
        Distrust::Name => {
            "has a certificate for another name: connect by that name, or set the server name"
        }
        Distrust::Expired => "has a certificate that has expired",
        Distrust::NotYetValid => "has a certificate that is not valid yet",
        Distrust::Authority => {
            "has a certificate of an authority that is not believed: name that authority if it is yours"
        }
        Distrust::Invalid => "has a certificate that is no good",
        Distrust::Client => {
            "does not take who we are: it wants a client certificate of an authority that it believes"
        }
    };
    ConsulError::new(
        ErrorKind::Untrusted(distrust),
        format!("the agent at {address} {why}"),
    )
}

/// The first error of TLS among `error` and its causes.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Tls> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<Tls>() {
            return Some(tls);
        }
        // What it wraps is not among its causes, only the causes of that.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(tls) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<Tls>()) {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

fn distrust(error: &Tls) -> Option<Distrust> {
    Some(match error {
        Tls::InvalidCertificate(why) => match why {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Distrust::Name
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Distrust::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Distrust::NotYetValid
            }
            // The latter of one that has the name of another, as when an authority was made anew.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Distrust::Authority,
            _ => Distrust::Invalid,
        },
        Tls::NoCertificatesPresented => Distrust::Invalid,
        // Said by the agent, of us.
        Tls::AlertReceived(
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired,
        ) => Distrust::Client,
        _ => return None,
    })
}
