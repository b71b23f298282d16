//! Completion for bash: one function, which needs nothing but bash itself.

use super::super::commands::{Place, Wanted, places};
use super::super::flags::Flag;

/// The script.
pub(super) fn script() -> String {
    let places = places();
    let known: Vec<_> = places[1..]
        .iter()
        .map(|place| format!("'{}'", place.path))
        .collect();
    let mut text = BEGIN.replace("KNOWN", &known.join(" | "));
    for place in &places {
        self::place(&mut text, place);
    }
    text.push_str(END);
    text
}

/// What may come at one place: by the flag before it, or else any of its words.
fn place(text: &mut String, place: &Place) {
    text.push_str(&format!(
        "        '{}')\n            case $before in\n",
        place.path
    ));
    for flag in &place.flags {
        let what = match flag.wanted() {
            Wanted::Nothing => continue,
            Wanted::Words(words) => format!("words='{}'", words.join(" ")),
            Wanted::File => "kind=file".to_owned(),
            Wanted::Folder => "kind=folder".to_owned(),
            Wanted::Own(_) => "kind=none".to_owned(),
        };
        let dashed = dashed(flag).join(" | ");
        text.push_str(&format!("                {dashed}) {what} ;;\n"));
    }
    let mut words: Vec<String> = place.words.iter().map(|(word, _)| (*word).into()).collect();
    let mut kind = "";
    match &place.operand {
        Wanted::Words(own) => words.extend(own.iter().map(ToString::to_string)),
        Wanted::File => kind = " kind=either",
        Wanted::Folder => kind = " kind=folder",
        Wanted::Nothing | Wanted::Own(_) => {}
    }
    words.extend(place.flags.iter().flat_map(dashed));
    let words = words.join(" ");
    text.push_str(&format!(
        "                *) words='{words}'{kind} ;;\n            esac\n            ;;\n"
    ));
}

fn dashed(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|short| format!("-{short}"));
    let long = format!("--{}", flag.long);
    [long].into_iter().chain(short).collect()
}

const BEGIN: &str = r#"# Completion of towpath's command lines for bash, made by `towpath gen completions bash`.

_towpath() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    # bash takes --flag=value for three words.
    if [[ $current == '=' ]]; then
        current=''
    elif [[ $before == '=' ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    local at place='' words='' kind=words
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "$place ${COMP_WORDS[at]}" in
            KNOWN)
                place+=" ${COMP_WORDS[at]}"
                ;;
            *) break ;;
        esac
    done
    case $place in
"#;

const END: &str = r#"    esac
    if [[ $kind == either ]]; then
        kind=file
        [[ $current != -* ]] || kind=words
    fi
    COMPREPLY=()
    case $kind in
        words) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
        file) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        folder) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    esac
    # Outside of a completion there is nothing to tell.
    [[ $kind == words ]] || compopt -o filenames 2>/dev/null || true
}

complete -F _towpath towpath
"#;
