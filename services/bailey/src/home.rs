//! Where the files of the stack are, on the host and in the one-shot container.

use std::path::{Path, PathBuf};

use crate::cli::Places;

/// The places that the flags name, with their defaults.
pub(crate) struct Home {
    places: Places,
    inside: bool,
}

impl Home {
    /// Where the containers see the plugins.
    pub(crate) const PLUGINS_INSIDE: &str = "/plugins";
    /// Which folder of the stack's own that is.
    pub(crate) const PLUGINS_OUTSIDE: &str = "plugin-roots";

    pub(crate) fn new(places: Places) -> Self {
        // The images hold nothing but /bailey; nobody installs it there on a host.
        let image = std::env::current_exe().is_ok_and(|exe| exe == Path::new("/bailey"));
        let inside = image || places.manage_dir.is_dir();
        Self { places, inside }
    }

    /// Whether this is the container `cli` (or `init`).
    pub(crate) fn is_inside(&self) -> bool {
        self.inside
    }

    pub(crate) fn json(&self) -> bool {
        self.places.json
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.places.home
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.places
            .config_dir
            .clone()
            .unwrap_or_else(|| self.default("/config", "config"))
    }

    /// The folder of all plugins, which the configuration knows as [`Home::PLUGINS_INSIDE`].
    pub(crate) fn plugin_roots(&self) -> PathBuf {
        self.default(Self::PLUGINS_INSIDE, Self::PLUGINS_OUTSIDE)
    }

    pub(crate) fn secrets_dir(&self) -> PathBuf {
        self.default("/secrets", "secrets")
    }

    fn default(&self, inside: &str, outside: &str) -> PathBuf {
        if self.inside {
            PathBuf::from(inside)
        } else {
            self.places.home.join(outside)
        }
    }

    pub(crate) fn trust_file(&self) -> PathBuf {
        self.config_dir().join("trust.json")
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.config_dir().join("bailey.lock")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.places
            .token_file
            .clone()
            .unwrap_or_else(|| self.places.home.join("secrets/api.token"))
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.places
            .ca
            .clone()
            .unwrap_or_else(|| self.places.home.join("config/ca.pem"))
    }

    pub(crate) fn url(&self) -> String {
        let port = || {
            self.setting("BAILEY_PORT")
                .unwrap_or_else(|| "8443".to_owned())
        };
        self.places
            .url
            .clone()
            .unwrap_or_else(|| format!("https://localhost:{}", port()))
    }

    pub(crate) fn admin_token_file(&self) -> &Path {
        &self.places.admin_token_file
    }

    pub(crate) fn manage_socket(&self, service: &str) -> PathBuf {
        self.places.manage_dir.join(service).join("manage.sock")
    }

    /// `compose.yaml`: as the flag says, in the stack's folder, or in the checkout that this program lies in (`build/bin/bailey`).
    pub(crate) fn compose_file(&self) -> Option<PathBuf> {
        if let Some(file) = &self.places.compose {
            return Some(file.clone());
        }
        let exe = std::env::current_exe().ok();
        let checkout = exe
            .as_deref()
            .into_iter()
            .flat_map(Path::ancestors)
            .skip(1)
            .take(4);
        let mut candidates = std::iter::once(self.places.home.as_path())
            .chain(checkout)
            .map(|dir| dir.join("compose.yaml"));
        candidates.find(|file| file.is_file())
    }

    pub(crate) fn env_file(&self) -> PathBuf {
        self.places.home.join(".env")
    }

    /// A setting of `.env`, which `make up` writes.
    pub(crate) fn setting(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.env_file()).ok()?;
        let value = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// The names that `.env` has values for.
    pub(crate) fn setting_names(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.env_file()).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.split_once('='));
        names
            .map(|(name, _)| name.trim().to_owned())
            .filter(|name| !name.is_empty() && !name.starts_with('#'))
            .collect()
    }
}
