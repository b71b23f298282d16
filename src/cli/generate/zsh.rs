//! Completion for zsh: one function for its completion system, to lie in its `fpath` as `_towpath`.

use super::super::commands::{Place, Wanted, places};
use super::super::flags::Flag;

/// The script.
pub(super) fn script() -> String {
    let places = places();
    let known: Vec<_> = places[1..]
        .iter()
        .map(|place| quoted(&place.path))
        .collect();
    let mut text = BEGIN.replace("KNOWN", &known.join("|"));
    for place in &places {
        self::place(&mut text, place);
    }
    text.push_str(END);
    text
}

fn place(text: &mut String, place: &Place) {
    text.push_str(&format!("        ({})\n", quoted(&place.path)));
    if !place.words.is_empty() {
        text.push_str("            next=(\n");
        for (word, about) in &place.words {
            let row = quoted(&format!("{word}:{about}"));
            text.push_str(&format!("                {row}\n"));
        }
        // The first argument may be one of the command's own, too.
        if let Wanted::Words(words) = &place.operand {
            let words = words.iter().map(|word| format!("                {word}\n"));
            text.extend(words);
        }
        text.push_str("            )\n");
    }
    text.push_str("            specs=(\n");
    for flag in &place.flags {
        text.push_str(&format!("                {}\n", spec(flag)));
    }
    let operand = match &place.operand {
        Wanted::Nothing => String::new(),
        wanted => quoted(&format!("*{}", action(wanted))),
    };
    if !operand.is_empty() {
        text.push_str(&format!("                {operand}\n"));
    }
    text.push_str("            )\n            ;;\n");
}

/// What `_arguments` is told of a flag.
fn spec(flag: &Flag) -> String {
    let value = action(&flag.wanted());
    let help = flag.help.replace('\\', "\\\\");
    let help = format!("[{}]", help.replace('[', "\\[").replace(']', "\\]"));
    let long = match flag.value {
        Some(_) => format!("--{}=", flag.long),
        None => format!("--{}", flag.long),
    };
    let repeats = if flag.repeats { "*" } else { "" };
    match flag.short {
        None => quoted(&format!("{repeats}{long}{help}{value}")),
        Some(short) if flag.repeats => {
            let rest = quoted(&format!("{help}{value}"));
            format!("'*'{{-{short},{long}}}{rest}")
        }
        Some(short) => {
            let rest = quoted(&format!("{help}{value}"));
            format!("'(-{short} --{})'{{-{short},{long}}}{rest}", flag.long)
        }
    }
}

/// The message and the action of a value.
fn action(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Nothing => String::new(),
        Wanted::Words(words) => format!(":one of them:({})", words.join(" ")),
        Wanted::File => ":FILE:_files".to_owned(),
        Wanted::Folder => ":DIR:_files -/".to_owned(),
        Wanted::Own(what) => format!(":{what}: "),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

const BEGIN: &str = r#"#compdef towpath
# Completion of towpath's command lines for zsh, made by `towpath gen completions zsh`.

_towpath() {
    local place='' at=2
    local -a next specs
    while (( at < CURRENT )); do
        case "$place $words[at]" in
            (KNOWN)
                place+=" $words[at]"
                ;;
            (*) break ;;
        esac
        (( at++ ))
    done
    case "$place" in
"#;

const END: &str = r#"    esac
    # What follows the command is completed as if it followed the program.
    words=(towpath "${(@)words[at,-1]}")
    (( CURRENT -= at - 2 ))
    if (( $#next && CURRENT == 2 )) && [[ $words[2] != -* ]]; then
        _describe -t commands command next
    else
        _arguments -s -S : $specs
    fi
}

_towpath "$@"
"#;
