//! Completions of bash, zsh and fish, written from the tables of commands and flags.

use crate::cli::commands::{FlagText, Subcommand, all};

/// Values that are paths.
fn is_path(value: &str) -> bool {
    value.starts_with("FILE") || value == "FOLDER"
}

/// `--name=` where a value follows, `--name` for a switch.
fn word(flag: &FlagText) -> String {
    format!("--{}{}", flag.name, if flag.value.is_some() { "=" } else { "" })
}

pub(super) fn bash() -> String {
    let commands: Vec<&str> = all().iter().map(|command| command.name).collect();
    let mut cases = String::new();
    for Subcommand { name, flags, words, .. } in all() {
        let flags: Vec<String> = flags.iter().map(word).collect();
        let name = if name == "serve" { "*" } else { name };
        let words = words.join(" ");
        let case = format!("        {name}) flags='{}' words='{words}' ;;\n", flags.join(" "));
        // The pattern that matches all stands last.
        if name == "*" { cases.push_str(&case) } else { cases.insert_str(0, &case) }
    }
    format!(
        "# bash completion for kinglet
_kinglet() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} flags words
    case ${{COMP_WORDS[1]}} in
{cases}    esac
    COMPREPLY=()
    if [[ $prev == = || $cur == = ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- \"${{cur#=}}\")
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W \"$flags\" -- \"$cur\")
        [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
    elif (( COMP_CWORD == 1 )); then
        mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\")
    elif [[ $prev == completions ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'bash zsh fish' -- \"$cur\")
    elif (( COMP_CWORD == 2 )) && [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")
    else
        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")
    fi
    return 0
}}
complete -o filenames -F _kinglet kinglet
",
        commands.join(" ")
    )
}

pub(super) fn zsh() -> String {
    // Within '..' of _arguments: brackets and colons are its own.
    let escaped = |text: &str| {
        let text = text.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]");
        text.replace(':', "\\:")
    };
    let mut described = String::new();
    let mut cases = String::new();
    for Subcommand { name, about, flags, words, .. } in all() {
        described.push_str(&format!("        '{name}:{}'\n", escaped(about)));
        cases.push_str(&format!("        {name}) _arguments -s \\\n"));
        for flag in &flags {
            let value = match &flag.value {
                Some(value) if is_path(value) => format!(":{}:_files", escaped(value)),
                Some(value) => format!(":{}:", escaped(value)),
                None => String::new(),
            };
            let equals = if flag.value.is_some() { "=" } else { "" };
            cases.push_str(&format!(
                "            '--{}{equals}[{}]{value}' \\\n",
                flag.name,
                escaped(&flag.help)
            ));
        }
        let first = match words {
            [] => "'*:file:_files'".to_owned(),
            words => format!("'1:what:({})' '2:shell:(bash zsh fish)'", words.join(" ")),
        };
        cases.push_str(&format!("            {first} ;;\n"));
    }
    format!(
        "#compdef kinglet
_kinglet() {{
    local -a commands=(
{described}    )
    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
        _describe command commands
        return
    fi
    local command=serve
    if [[ $words[2] != -* ]]; then
        command=$words[2]
        shift words
        (( CURRENT-- ))
    fi
    case $command in
{cases}    esac
}}
if [[ $funcstack[1] == _kinglet ]]; then _kinglet \"$@\"; else compdef _kinglet kinglet; fi
"
    )
}

pub(super) fn fish() -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let names: Vec<&str> = all().iter().map(|command| command.name).collect();
    let mut text = String::from("# fish completion for kinglet\n");
    for Subcommand { name, about, flags, words, .. } in all() {
        text.push_str(&format!(
            "complete -c kinglet -n __fish_use_subcommand -a {name} -d '{}'\n",
            escaped(about)
        ));
        let when = match name {
            // The command where none is given.
            "serve" => {
                let others: Vec<&str> = names.iter().filter(|name| **name != "serve").copied().collect();
                format!("not __fish_seen_subcommand_from {}", others.join(" "))
            }
            name => format!("__fish_seen_subcommand_from {name}"),
        };
        for flag in &flags {
            let value = match &flag.value {
                Some(value) if is_path(value) => " -r -F",
                Some(_) => " -x",
                None => "",
            };
            text.push_str(&format!(
                "complete -c kinglet -n '{when}' -l {}{value} -d '{}'\n",
                flag.name,
                escaped(&flag.help)
            ));
        }
        if !words.is_empty() {
            text.push_str(&format!("complete -c kinglet -n '{when}' -f -a '{}'\n", words.join(" ")));
        }
    }
    text.push_str("complete -c kinglet -n '__fish_seen_subcommand_from completions' -f -a 'bash zsh fish'\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What bash offers for a line.
    fn offered(line: &[&str]) -> Option<Vec<String>> {
        let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "{}\ncompopt() {{ :; }}\nCOMP_WORDS=({}); COMP_CWORD={}; _kinglet; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash(),
            words.join(" "),
            line.len() - 1
        );
        let Ok(output) = Command::new("bash").args(["--norc", "-c", &script]).output() else {
            eprintln!("SKIPPED: there is no bash to complete with");
            return None;
        };
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
    }

    #[test]
    fn bash_completes() {
        let Some(commands) = offered(&["kinglet", "he"]) else { return };
        assert_eq!(commands, ["health"]);
        assert_eq!(offered(&["kinglet", "--rest_api_p"]).unwrap(), ["--rest_api_port="]);
        assert_eq!(offered(&["kinglet", "serve", "--tfs"]).unwrap(), ["--tfs_strict_compat"]);
        assert_eq!(offered(&["kinglet", "bench", "--prof"]).unwrap(), ["--profile"]);
        assert_eq!(offered(&["kinglet", "generate", "ks"]).unwrap(), ["kserve"]);
        assert_eq!(offered(&["kinglet", "generate", "completions", "z"]).unwrap(), ["zsh"]);
    }

    #[test]
    fn every_shell_knows_every_command() {
        for text in [bash(), zsh(), fish()] {
            for command in all() {
                assert!(text.contains(command.name), "{}", command.name);
            }
            assert!(text.contains("model_base_path") && text.contains("iterations"));
        }
    }
}
