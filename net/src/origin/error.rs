//! What an origin says, as Orion says it.

use object_store::Error as StoreError;
use orion_proto::{Code, Error};

use super::location::shown;
use crate::root_cause;

/// What went wrong with something of an origin.
pub(super) fn failed(what: &dyn std::fmt::Display, error: &StoreError) -> Error {
    let (code, said) = match error {
        StoreError::NotFound { .. } => (Code::NotFound, "it is not there".to_owned()),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            (Code::PermissionDenied, "the origin does not let this machine in; it needs credentials".to_owned())
        }
        StoreError::Precondition { .. } => {
            (Code::Unavailable, "it was changed while it was downloaded; pulled again it begins anew".to_owned())
        }
        StoreError::UnknownConfigurationKey { key, store } => {
            (Code::InvalidArgument, format!("option '{key}' is not known for {store}"))
        }
        StoreError::InvalidPath { source } => (Code::InvalidArgument, source.to_string()),
        _ => {
            let reason = without_queries(&reason(error));
            // Where a provider's credentials are looked for last of all, on its own machines.
            let is_sought = ["169.254.169.254", "metadata.google.internal"].iter().any(|host| reason.contains(host));
            let hint = "; no credentials were found: set them as the provider's tools take them (AWS_*, AZURE_*, GOOGLE_*), or \
                        say in the --origins file that none are needed";
            (Code::Unavailable, if is_sought { reason + hint } else { reason })
        }
    };
    Error::new(code, format!("{what}: {said}"))
}

/// The innermost cause, with the one around it where that says more: an origin's own words are in it.
fn reason(error: &StoreError) -> String {
    let (cause, whole) = (root_cause(error), error.to_string());
    // What follows is the answer's markup.
    let whole = whole.lines().next().unwrap_or_default().split(": <").next().unwrap_or_default();
    if whole.contains(&cause) || whole.len() > 400 {
        whole.chars().take(400).collect()
    } else {
        format!("{whole}: {cause}")
    }
}

/// Text in which URLs have no queries: they may be signatures.
fn without_queries(text: &str) -> String {
    let word = |word: &str| match word.split_once('?') {
        Some((before, rest)) if before.contains("://") => {
            let after: String = rest.chars().skip_while(|letter| !matches!(letter, ')' | '"' | '\'' | ',')).collect();
            format!("{}{after}", shown(before))
        }
        _ if word.contains("://") => shown(word),
        _ => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_not_shown() {
        let shown =
            without_queries("GET (https://host/a?Signature=x&b=c), https://me:secret@host/b then 'http://h/?t=1' why?");
        assert_eq!(shown, "GET (https://host/a), https://host/b then 'http://h/' why?");
    }
}
