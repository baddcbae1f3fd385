"""Twenty commands that work on files, each with six ways to ask for it."""

from __future__ import annotations

FILES: dict[str, tuple[str, ...]] = {
    "ls {order} {dir}": (
        "list {dir} {order}", "show {dir} {order}", "what is in {dir}, {order}",
        "files of {dir} {order}", "contents of {dir} {order}", "{order}, list {dir}",
    ),
    "find {dir} -name '{pattern}'": (
        "find {pattern} in {dir}", "search {dir} for {pattern}", "where in {dir} are {pattern}",
        "look for {pattern} under {dir}", "all {pattern} below {dir}", "locate {pattern} in {dir}",
    ),
    "find {dir} -size +{large}": (
        "files over {large} in {dir}", "what in {dir} takes over {large}",
        "find files in {dir} above {large}", "anything over {large} in {dir}",
        "in {dir}, find more than {large}", "big files in {dir}, over {large}",
    ),
    "find {dir} -mtime -{days}": (
        "what changed in {dir} {days}", "files of {dir} changed {days}",
        "changed {days} in {dir}", "find in {dir} what is new {days}",
        "show changes {days} under {dir}", "which files in {dir} changed {days}",
    ),
    "tail -n {count} {file}": (
        "last {count} lines of {file}", "show the last {count} lines of {file}",
        "end of {file}, {count} lines", "the final {count} lines in {file}",
        "bottom {count} lines of {file}", "print {count} lines from the end of {file}",
    ),
    "head -n {count} {file}": (
        "first {count} lines of {file}", "show the first {count} lines of {file}",
        "top of {file}, {count} lines", "the beginning {count} lines in {file}",
        "top {count} lines of {file}", "print {count} lines from the start of {file}",
    ),
    "tail -f {dir}/{file}": (
        "follow {file} in {dir}", "watch {dir}/{file} grow", "keep reading {file} in {dir}",
        "stream {file} from {dir}", "live view of {dir}/{file}", "wait for lines in {dir}/{file}",
    ),
    "wc {unit} {file}": (
        "count {unit} of {file}", "how many {unit} has {file}", "number of {unit} in {file}",
        "tell the {unit} in {file}", "{file}: how many {unit}", "total {unit} of {file}",
    ),
    "grep -i '{word}' {file}": (
        "lines with {word} in {file}", "show {word} in {file}, any case",
        "which lines of {file} say {word}", "get {word} lines from {file}",
        "filter {file} for {word}", "match {word} in {file} in any case",
    ),
    "grep -rn '{word}' {dir}": (
        "search {word} everywhere in {dir}", "where does {dir} mention {word}",
        "find the word {word} under {dir}", "all files in {dir} with {word}",
        "look through {dir} for {word}", "uses of {word} below {dir}",
    ),
    "cp -r {dir} {target}": (
        "copy {dir} to {target}", "duplicate {dir} into {target}", "place {dir} in {target} too",
        "clone {dir} to {target}", "make {target} a copy of {dir}", "save {dir} also in {target}",
    ),
    "mv {file} {target}": (
        "move {file} to {target}", "put {file} into {target}", "shift {file} to {target}",
        "send {file} over to {target}", "{file} belongs in {target}", "relocate {file} to {target}",
    ),
    "rm {force} {file}": (
        "delete {file} {force}", "remove {file} {force}", "get rid of {file} {force}",
        "erase {file} {force}", "throw away {file} {force}", "drop {file} {force}",
    ),
    "mkdir -p {dir}/{name}": (
        "make a folder {name} in {dir}", "new folder {name} under {dir}",
        "create {name} inside {dir}", "add directory {name} to {dir}",
        "a folder called {name} in {dir}", "set up {name} within {dir}",
    ),
    "chmod {right} {file}": (
        "make {file} {right}", "set {file} {right}", "{file} should be {right}",
        "turn {file} {right}", "let {file} be {right}", "rights of {file}: {right}",
    ),
    "chown {user} {file}": (
        "give {file} to {user}", "make {user} own {file}", "owner of {file}: {user}",
        "{user} should own {file}", "change owner of {file} to {user}", "hand {file} to {user}",
    ),
    "tar -c{press}f {name}.tar {dir}": (
        "pack {dir} as {name} with {press}", "archive {dir} into {name}, {press}",
        "make archive {name} of {dir}, {press}", "bundle {dir} as {name}, {press}",
        "compress {dir} to {name} with {press}", "{press} archive {name} from {dir}",
    ),
    "tar -xf {name}.tar -C {dir}": (
        "unpack {name} to {dir}", "extract {name} into {dir}", "open archive {name} in {dir}",
        "untar {name} under {dir}", "expand {name} to {dir}", "restore {name} into {dir}",
    ),
    "diff {style} {file} {other}": (
        "compare {file} and {other} {style}", "difference of {file} and {other} {style}",
        "how do {file} and {other} differ, {style}", "diff of {file} with {other} {style}",
        "{style}, compare {file} to {other}", "check {file} against {other} {style}",
    ),
    "sed -i 's/{word}/{new}/' {file}": (
        "replace {word} by {new} in {file}", "change {word} to {new} in {file}",
        "in {file}, {word} becomes {new}", "swap {word} for {new} in {file}",
        "substitute {new} for {word} in {file}", "rename {word} as {new} in {file}",
    ),
}  # fmt: skip
"""The command, with its slots, and the ways to ask."""
