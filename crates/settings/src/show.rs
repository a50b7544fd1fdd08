//! Settings as a TOML file with the origin of each, for people to read and to start a file from.

use std::fmt;

use crate::layers::{Origin, Resolved, Setting};

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.settings.iter().map(|setting| (line(setting), setting)).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
        for (line, setting) in lines {
            writeln!(f, "{line:<width$}  # {}", setting.origin)?;
        }
        Ok(())
    }
}

/// `key = value`, as a comment where the value is only the default.
fn line(Setting { key, values, origin }: &Setting) -> String {
    let values: Vec<String> = values.iter().map(|value| in_toml(value)).collect();
    let value = match &*values {
        [] => return format!("# {key} ="),
        [value] => value.clone(),
        values => format!("[{}]", values.join(", ")),
    };
    let comment = if *origin == Origin::Default { "# " } else { "" };
    format!("{comment}{key} = {value}")
}

fn in_toml(text: &str) -> String {
    let is_number = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if is_number || matches!(text, "true" | "false") {
        return text.to_owned();
    }
    toml::Value::String(text.to_owned()).to_string()
}
