//! Secrets that systemd hands over as files only this process can read (`LoadCredential=`).

use crate::cli::Options;
use std::path::Path;

/// Names in the folder of credentials, as `packaging/kinglet.service` gives them.
const TOKENS: &str = "tokens";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The options with the tokens and the certificate of `$CREDENTIALS_DIRECTORY`, where no flag names others.
pub(in super::super) fn with_credentials(options: &Options) -> Options {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    match folder {
        Some(folder) => with_folder(options, Path::new(&folder)),
        None => options.clone(),
    }
}

fn with_folder(options: &Options, folder: &Path) -> Options {
    let there = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let mut options = options.clone();
    if options.auth_tokens_file.is_none()
        && let Some(tokens) = there(TOKENS)
    {
        log::info!("clients need a token of the credential `{TOKENS}`");
        options.auth_tokens_file = Some(tokens);
    }
    if options.tls_identity.is_none() && options.ssl_config_file.is_none() {
        match (there(CERTIFICATE), there(KEY)) {
            (Some(certificate), Some(key)) => {
                log::info!("TLS with the credentials `{CERTIFICATE}` and `{KEY}`");
                options.tls_identity = Some((certificate, key));
            }
            (None, None) => {}
            _ => log::warn!("the credentials `{CERTIFICATE}` and `{KEY}` go together: one alone is not used"),
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn options(line: &str) -> Options {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Command::Serve(options, _) = parse(&words, |_| None).unwrap() else { panic!() };
        *options
    }

    #[test]
    fn credentials_stand_below_flags() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let found = with_folder(&options(""), folder.path());
        assert_eq!((found.auth_tokens_file, found.tls_identity), (None, None));

        std::fs::write(path(TOKENS), "").unwrap();
        std::fs::write(path(KEY), "").unwrap();
        let found = with_folder(&options(""), folder.path());
        assert_eq!((found.auth_tokens_file, found.tls_identity), (Some(path(TOKENS)), None));

        std::fs::write(path(CERTIFICATE), "").unwrap();
        let found = with_folder(&options("--auth_tokens_file=/t"), folder.path());
        assert_eq!(found.auth_tokens_file, Some("/t".into()));
        assert_eq!(found.tls_identity, Some((path(CERTIFICATE), path(KEY))));
        let found = with_folder(&options("--tls_cert=/c --tls_key=/k"), folder.path());
        assert_eq!(found.tls_identity, Some(("/c".into(), "/k".into())));
        assert_eq!(with_folder(&options("--ssl_config_file=/s"), folder.path()).tls_identity, None);
    }
}
