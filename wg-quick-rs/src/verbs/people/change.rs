//! The common part of all changes: the file is read under a lock, and file and interface are changed
//! together.

use std::fs;
use std::process::ExitCode;

use wg_crypto::key::PublicKey;
use wg_rs::model::Interface;
use zeroize::Zeroizing;

use crate::file::difference::{Difference, desired};
use crate::file::edit::Edit;
use crate::file::roster::{PeerSection, Who, is_inside, members};
use crate::file::table::Table;
use crate::file::{self, File, Location};
use crate::plan::endpoint;
use crate::plan::find::find;
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::state::PeerOfFile;
use crate::steps::step::{Secret, Step};
use crate::steps::transaction::{self, Transaction};
use crate::verbs::reload;
use wg_rs::config::{PeerSettings, Retries};
use wg_rs::model::AllowedIp;

/// A file that is locked against other commands.
pub struct Opened {
    /// The parsed file.
    pub file: File,
    /// Its text.
    pub text: Zeroizing<Vec<u8>>,
    /// Whether its interface is running.
    pub runs: bool,
}

/// Runs `work` on a file, which must have no errors.
pub fn with(
    location: &Location,
    work: impl FnOnce(&mut Transaction, &Opened) -> Result<(), Failure>,
) -> ExitCode {
    transaction::with(&location.interface, |transaction| {
        let path = fs::canonicalize(&location.path)?;
        let text = Zeroizing::new(fs::read(&path)?);
        let mut file = parse(&location.path.to_string_lossy(), &location.interface, &text)?;
        file.path = path;
        let runs = find(transaction, &file)?;
        work(transaction, &Opened { file, text, runs })
    })
}

fn parse(name: &str, interface: &str, text: &[u8]) -> Result<File, Failure> {
    let (file, errors) = file::parse(name, interface, text);
    transaction::without(errors)?;
    Ok(file)
}

impl Opened {
    /// The peer with this name or key, and its sections.
    ///
    /// # Errors
    /// The file has no such peer.
    pub fn find(&self, text: &Edit, who: &Who) -> Result<(PublicKey, Vec<PeerSection>), Failure> {
        let mut all = members(text);
        let Some(key) = who.key(&all) else {
            return Err(Failure::new(format_args!(
                "{}: there is no peer `{who}'; `{} list {}' shows who is there",
                self.file.path.display(),
                console::program(),
                self.file.interface
            )));
        };
        all.retain(|member| member.peer.public_key == key);
        Ok((key, all))
    }

    /// The networks of the interface.
    pub fn networks(&self) -> Vec<AllowedIp> {
        let own = self.file.addresses.iter();
        let mut networks: Vec<_> = own.filter_map(|own| own.value.network()).collect();
        networks.dedup();
        networks
    }

    /// Replaces the text of the file, and changes the peers with these keys in the interface, if it is
    /// running.
    ///
    /// # Errors
    /// The file cannot be written, or the interface refuses it.
    pub fn apply(
        &self,
        transaction: &mut Transaction,
        text: Zeroizing<Vec<u8>>,
        keys: &[PublicKey],
    ) -> Result<(), Failure> {
        let path = self.file.path.clone();
        let mut file = parse(&path.to_string_lossy(), &self.file.interface, &text)?;
        file.path.clone_from(&path);
        transaction.run(Step::ReplaceFile {
            path,
            old: Secret(self.text.clone()),
            new: Secret(text),
        })?;
        if !self.runs {
            return Ok(());
        }
        let peers = [&self.file, &file].map(|file| file.settings.peers.iter());
        let concerned = peers.into_iter().flatten();
        let mut concerned = concerned.filter(|peer| keys.contains(&peer.public_key));
        if concerned.any(|peer| self.needs_routes(peer)) {
            return reload::bring_to_file(transaction, &file);
        }
        self.change(transaction, &file, keys)?;
        if let Some(state) = &mut transaction.state {
            let keys: Vec<_> = keys.iter().map(PublicKey::to_base64).collect();
            let of_keys = |peer: &PeerOfFile| keys.contains(&peer.public_key);
            state.peers.retain(|peer| !of_keys(peer));
            let new = PeerOfFile::all(&file.settings).into_iter().filter(of_keys);
            state.peers.extend(new);
        }
        Ok(())
    }

    /// Whether a peer has a network outside of the interface's own networks, which already have routes.
    fn needs_routes(&self, peer: &PeerSettings) -> bool {
        let own = self.networks();
        let has_route = |ip: &AllowedIp| own.iter().any(|own| is_inside(ip, own));
        self.file.table != Table::Off && peer.allowed_ips.iter().any(|one| !has_route(&one.ip))
    }

    /// Changes only the peers with these keys in the interface, as the file says.
    fn change(
        &self,
        transaction: &mut Transaction,
        file: &File,
        keys: &[PublicKey],
    ) -> Result<(), Failure> {
        let before = transaction.target.get_extended()?;
        let mut settings = file.settings.clone();
        settings
            .peers
            .retain(|peer| keys.contains(&peer.public_key));
        let signals = &transaction.signals;
        let retries = Retries::from_env().map_err(Failure::new)?;
        let address = |peer: &PeerSettings, now| match (&peer.endpoint, now) {
            (_, Some(now)) => Ok(Some(now)),
            (None, None) => Ok(None),
            (Some(endpoint), None) => endpoint::resolve(endpoint, None, retries, signals)
                .map(Some)
                .map_err(Failure::new),
        };
        let wanted = desired(&before, &settings, false, address)?;
        let [old, new] = [before, wanted].map(|interface| {
            let mut peers = interface.peers;
            peers.retain(|peer| keys.contains(&peer.public_key));
            Interface {
                peers,
                ..Interface::default()
            }
        });
        let join = |difference: Difference| [difference.more, difference.less].concat();
        let changes = join(Difference::new(&old, &new));
        if changes.is_empty() {
            return Ok(());
        }
        let undo = join(Difference::new(&new, &old));
        transaction.run(Step::Set { changes, undo })
    }
}
