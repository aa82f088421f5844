//! The server's certificate: given, read from TensorFlow Serving's file, or made at the first start and kept.

use super::ServeError;
use crate::{
    cli::Options,
    models::{
        Error,
        textproto::{Fields, ParseError, parse},
    },
    wire::Tls,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fs, io,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

const CERTIFICATE: &str = "kinglet.crt";
const KEY: &str = "kinglet.key";
/// PEM files above this size are no certificates.
const MAX_FILE: u64 = 1 << 20;

/// TLS, and where its certificate can be read again.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) tls: Tls,
    source: Source,
    /// Made here, so that clients cannot know it.
    pub(super) self_signed: bool,
    /// Clients are let in by certificate only.
    pub(super) asks_clients: bool,
}

#[derive(Clone)]
enum Source {
    Files(PathBuf, PathBuf),
    SslConfig(PathBuf),
}

/// PEM texts.
struct Material {
    certificates: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Identity {
    /// What the options ask for; `None` without TLS.
    pub(super) fn new(options: &Options) -> Result<Option<Self>, ServeError> {
        let (source, self_signed) = match (&options.tls_identity, &options.ssl_config_file) {
            (Some((certificate, key)), _) => (Source::Files(certificate.clone(), key.clone()), false),
            (None, Some(path)) => (Source::SslConfig(path.clone()), false),
            (None, None) if options.tls || options.tls_client_ca.is_some() => {
                let (certificate, key) = own_certificate(options).map_err(|error| {
                    configuration(format!(
                        "no certificate can be kept: {error}; --state_dir=FOLDER says where"
                    ))
                })?;
                (Source::Files(certificate, key), true)
            }
            (None, None) => return Ok(None),
        };
        let material = source.read()?;
        let authorities = match &options.tls_client_ca {
            Some(path) => Some(read(path)?),
            None => material.authorities,
        };
        let tls = match &authorities {
            None => Tls::new(&material.certificates, &material.key),
            Some(authorities) => {
                Tls::with_client_certificates(&material.certificates, &material.key, authorities)
            }
        };
        let tls = tls.map_err(|error| configuration(format!("{}: {error}", source.shown())))?;
        Ok(Some(Self { tls, source, self_signed, asks_clients: authorities.is_some() }))
    }

    /// Reads the certificate again; connections that exist are not touched.
    pub(super) fn reload(&self) {
        let reloaded = self.source.read().map_err(|error| error.to_string()).and_then(|material| {
            self.tls.reload(&material.certificates, &material.key).map_err(|error| error.to_string())
        });
        match reloaded {
            Ok(()) => log::info!("the certificate is read again"),
            Err(error) => log::error!("the certificate stays as it is: {error}"),
        }
    }
}

impl Source {
    fn shown(&self) -> String {
        match self {
            Source::Files(certificate, key) => format!("{} and {}", certificate.display(), key.display()),
            Source::SslConfig(path) => path.display().to_string(),
        }
    }

    fn read(&self) -> Result<Material, ServeError> {
        match self {
            Source::Files(certificate, key) => {
                Ok(Material { certificates: read(certificate)?, key: read(key)?, authorities: None })
            }
            Source::SslConfig(path) => ssl_config(&read(path)?).map_err(|error| {
                configuration(format!("Invalid protobuf file: '{}': {error}", path.display()))
            }),
        }
    }
}

/// `tensorflow.serving.SSLConfig`, whose strings are PEM texts.
fn ssl_config(text: &[u8]) -> Result<Material, ParseError> {
    let mut fields = Fields::new(parse(text)?, "tensorflow.serving.SSLConfig");
    let key = fields.string("server_key")?.unwrap_or_default();
    let certificates = fields.string("server_cert")?.unwrap_or_default();
    let authorities = fields.string("custom_ca")?.unwrap_or_default();
    let verify = fields.boolean("client_verify")?.unwrap_or(false);
    fields.finish()?;
    Ok(Material {
        certificates: certificates.into(),
        key: key.into(),
        authorities: verify.then(|| authorities.into()),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    let failed = |error: io::Error| configuration(format!("cannot read {}: {error}", path.display()));
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(configuration(format!("{} is too long for a PEM file", path.display())));
    }
    fs::read(path).map_err(failed)
}

fn configuration(text: String) -> ServeError {
    ServeError::Configuration(Error::invalid_argument(text))
}

/// The certificate of an earlier start, or a new one.
fn own_certificate(options: &Options) -> io::Result<(PathBuf, PathBuf)> {
    let folder =
        options.state_dir.clone().or_else(system_state).ok_or_else(|| io::Error::other("no home folder"))?;
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    if !(certificate.is_file() && key.is_file()) {
        fs::create_dir_all(&folder)?;
        let (certificate_pem, key_pem) = self_signed(options.address).map_err(io::Error::other)?;
        write(&key, &key_pem, 0o600)?;
        write(&certificate, &certificate_pem, 0o644)?;
        log::info!("made a self-signed certificate: {}", certificate.display());
    }
    Ok((certificate, key))
}

fn system_state() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd may name several folders; the first is ours.
    let systemd = variable("STATE_DIRECTORY").and_then(|paths| std::env::split_paths(&paths).next());
    systemd
        .or_else(|| variable("XDG_STATE_HOME").map(|home| home.join("kinglet")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/kinglet")))
}

/// Writes a whole file at once: a start that is cut short leaves none.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// A certificate for this host, good for itself, and its key (ECDSA P-256); both PEM.
fn self_signed(address: IpAddr) -> Result<(String, String), rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    let host = fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    if !host.is_empty() && host.is_ascii() {
        names.push(host);
    }
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "kinglet");
    // A device without a clock of its own may believe that it is 1970.
    parameters.not_before = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2099, 12, 31);
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok((pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der())))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse as parse_line};

    fn options(line: &str) -> Options {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse_line(&words, |_| None).unwrap() {
            Command::Serve(options, _) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_is_made_once_and_kept() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let options = options(&format!("--tls --state_dir={}/state", folder.path().display()));
        let identity = Identity::new(&options).unwrap().unwrap();
        assert!(identity.self_signed && !identity.asks_clients);
        let key = folder.path().join("state").join(KEY);
        let first = fs::read(&key).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        Identity::new(&options).unwrap().unwrap();
        assert_eq!(fs::read(&key).unwrap(), first);
        identity.reload();
    }

    #[test]
    fn tensorflow_servings_file() {
        let (certificate, key) = self_signed("127.0.0.1".parse().unwrap()).unwrap();
        let escaped = |text: &str| text.replace('\n', "\\n");
        let text = |verify: bool| {
            format!(
                "server_key: \"{}\"\nserver_cert: \"{}\"\ncustom_ca: \"{}\"\nclient_verify: {verify}",
                escaped(&key),
                escaped(&certificate),
                escaped(&certificate)
            )
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        for verify in [false, true] {
            fs::write(file.path(), text(verify)).unwrap();
            let options = options(&format!("--ssl_config_file={}", file.path().display()));
            let identity = Identity::new(&options).unwrap().unwrap();
            assert_eq!((identity.self_signed, identity.asks_clients), (false, verify));
        }
        fs::write(file.path(), "server_kee: \"\"").unwrap();
        assert!(Identity::new(&options(&format!("--ssl_config_file={}", file.path().display()))).is_err());
        assert!(Identity::new(&options("")).unwrap().is_none());
        assert!(Identity::new(&options("--tls_cert=/no --tls_key=/no")).is_err());
    }
}
