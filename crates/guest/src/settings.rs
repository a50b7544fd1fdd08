//! The host's settings on the kernel's command line.

use std::io;

/// The transport between host and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Sockets of the kernel's vsock.
    #[default]
    Vsock,
    /// A virtio-serial port with [`vm::mux`] on top.
    Mux,
}

/// The way to end the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PowerOff {
    /// It can be switched off.
    #[default]
    Off,
    /// It can only be reset, which the VMM takes for its end.
    Reset,
}

/// The settings, all of which have defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `actiond.transport=vsock|mux`
    pub transport: Transport,
    /// `actiond.power_off=off|reset`
    pub power_off: PowerOff,
    /// `actiond.format_cas=1`: a blank CAS disk may be given a file system.
    pub format_cas: bool,
    /// `actiond.worker=--flag=value`, as often as needed: flags of `serve` for the worker.
    pub worker_flags: Vec<String>,
}

/// A setting that is not understood. Wrong settings must not go unnoticed: they decide over a disk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's command line has {0}, which means nothing")]
pub struct SettingsError(String);

impl Settings {
    /// Those that this machine was booted with.
    ///
    /// # Errors
    /// When the command line can't be read or has an unknown setting.
    pub fn of_this_boot() -> io::Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline")?;
        Self::parse(&line).map_err(io::Error::other)
    }

    /// The settings in a command line; what does not begin with `actiond.` is the kernel's.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn parse(line: &str) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for word in line.split_ascii_whitespace() {
            let Some(setting) = word.strip_prefix("actiond.") else { continue };
            match setting {
                "transport=vsock" => settings.transport = Transport::Vsock,
                "transport=mux" => settings.transport = Transport::Mux,
                "power_off=off" => settings.power_off = PowerOff::Off,
                "power_off=reset" => settings.power_off = PowerOff::Reset,
                "format_cas=1" => settings.format_cas = true,
                "format_cas=0" => settings.format_cas = false,
                _ => match setting.strip_prefix("worker=") {
                    Some(flag) => settings.worker_flags.push(flag.to_owned()),
                    None => return Err(SettingsError(word.to_owned())),
                },
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_virtualization_framework() {
        let line = "console=hvc0 init=/init panic=-1 quiet\n";
        assert_eq!(Settings::parse(line), Ok(Settings::default()));
        assert_eq!(Settings::default().transport, Transport::Vsock);
        assert!(!Settings::default().format_cas, "nothing is formatted unless it is asked for");
    }

    #[test]
    fn all_settings() {
        let line = "init=/init actiond.transport=mux actiond.power_off=reset actiond.format_cas=1 \
                    actiond.worker=--jobs=2 actiond.worker=--log=debug";
        let expected = Settings {
            transport: Transport::Mux,
            power_off: PowerOff::Reset,
            format_cas: true,
            worker_flags: vec!["--jobs=2".to_owned(), "--log=debug".to_owned()],
        };
        assert_eq!(Settings::parse(line), Ok(expected));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for word in ["actiond.format_cas=yes", "actiond.transport=", "actiond.nonsense"] {
            assert_eq!(Settings::parse(word), Err(SettingsError(word.to_owned())));
        }
    }
}
