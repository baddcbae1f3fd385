"""Grammar of embedded:commands: slot values, and forty commands with six requests each."""

from __future__ import annotations

Value = tuple[str, str]
"""Value in the request, value in the command."""


def _same(words: str) -> list[Value]:
    return [(word, word) for word in words.split()]


def _pairs(*values: str) -> list[Value]:
    """Values as "request=command"."""
    return [(spoken, written) for spoken, _, written in (v.partition("=") for v in values)]


_FILES = _same("notes.txt app.log main.py todo.md data.csv run.sh users.json index.html")
_FOLDERS = _same("/var/log /tmp /etc /home ~/docs ~/music src tests build")
_NUMBERS = [
    *_pairs("two=2", "three=3", "five=5", "ten=10", "fifty=50", "a hundred=100"),
    *_same("4 15 25 40 60"),
    # "a few" is ambiguous by design.
    *_pairs("a few=3", "a few=5", "a few=10", "some=20"),
]

SLOTS: dict[str, list[Value]] = {
    "file": _FILES,
    "other": _FILES,
    "dir": _FOLDERS,
    "target": _FOLDERS,
    "word": _same("error warning main import user failed token login"),
    "new": _same("notice start done export admin key total delay"),
    "count": _NUMBERS,
    "pattern": _pairs(
        "python files=*.py", "text files=*.txt", "logs=*.log", "images=*.png", "tables=*.csv",
        "web pages=*.html", "archives=*.gz", "archives=*.zip", "music=*.mp3", "music=*.flac",
    ),
    "order": _pairs(
        "by size=-S", "by time=-t", "in reverse=-r", "by extension=-X", "with details=-l",
        "with hidden ones=-a", "one a line=-1", "with sizes=-s",
    ),
    "large": _pairs(
        "10 megabytes=10M", "100 megabytes=100M", "500 megabytes=500M", "a gigabyte=1G",
        "ten gigabytes=10G", "900 kilobytes=900k", "a lot=50M", "a lot=5G",
    ),
    "days": _pairs(
        "today=1", "in two days=2", "in three days=3", "this week=7", "in two weeks=14",
        "this month=30", "recently=1", "recently=3", "recently=7", "this year=365",
    ),
    "unit": _pairs("lines=-l", "words=-w", "bytes=-c", "characters=-m"),
    "right": _pairs(
        "executable=+x", "readable for all=a+r", "read only=444", "private=600",
        "writable for the group=g+w", "unwritable for others=o-w", "open to all=777",
    ),
    "user": _same("anna ben carla david root guest postgres oscar"),
    "group": _same("docker sudo video audio staff games"),
    "press": _pairs("gzip=z", "bzip2=j", "xz=J", "small=J", "small=j"),
    "name": _same("alpha release photos site backup july shop blog"),
    "force": _pairs("at once=-f", "and ask first=-i", "and tell=-v"),
    "style": _pairs("side by side=-y", "in brief=-q", "unified=-u", "without blanks=-w"),
    "depth": _pairs("one level=1", "two levels=2", "three levels=3", "four levels=4"),
    "scale": _pairs("in human units=-h", "in kilobytes=-k", "with inodes=-i", "with types=-T"),
    "signal": _pairs("politely=TERM", "by force=KILL", "to reload=HUP", "for a pause=STOP"),
    "pid": _same("311 402 517 628 733 849 950 1024 2048 3001"),
    "process": _same("nginx python node java redis chrome bash sshd"),
    "by": _pairs("cpu=-%cpu", "memory=-%mem", "start=start_time", "name=comm"),
    "port": _same(
        "22 25 53 80 110 443 631 993 2049 3000 3306 5432 5900 6379 7000 8000 8080 8443 9000 9090"
    ),
    "action": _same("start stop restart enable disable reload mask"),
    "service": _same("nginx docker ssh cron mysql redis cups ufw"),
    "host": _same("web1 web2 db1 mail nas lab gate node7"),
    "kind": _pairs("feature=feature", "fix=fix", "bug fix=fix", "hotfix=hotfix", "docs=docs"),
    "branch": _same("main dev stable next login search api tests"),
    "how": _pairs("quietly=-q", "without commit=--no-commit", "as one commit=--squash"),
    "package": _same("numpy torch flask scipy pandas rich pytest click"),
    "version": _same("1.0 1.2 2.0 2.1 3.4 0.9 4.0 5.1"),
    "hour": _pairs("noon=12", "midnight=0", "six=6", "eight=8", "nine=9", "eleven=11",
                   "night=2", "night=3", "night=4"),
    "day": _pairs("Monday=mon", "Tuesday=tue", "Friday=fri", "Sunday=sun", "Saturday=sat",
                  "today=today", "tomorrow=tomorrow"),
    "level": _pairs("low=10", "very low=19", "high=-5", "very high=-20", "normal=0"),
    "time": _pairs(
        "a minute=60", "ten seconds=10", "half a minute=30", "an hour=3600", "two minutes=120",
        "a while=20", "a while=90", "a while=300",
    ),
}  # fmt: skip
"""Values of each slot. Equal words with two meanings make a request ambiguous by design."""


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
"""Command with slots, and six requests for it."""


SYSTEM: dict[str, tuple[str, ...]] = {
    "du -h -d {depth} {dir}": (
        "disk use of {dir}, {depth}", "how big is {dir}, {depth}", "space in {dir} at {depth}",
        "size of {dir} to {depth}", "what fills {dir}, {depth}", "usage below {dir}, {depth}",
    ),
    "df {scale} {dir}": (
        "free space on {dir} {scale}", "how full is {dir} {scale}", "room left at {dir} {scale}",
        "free disk at {dir} {scale}", "file system of {dir} {scale}", "space left {scale} on {dir}",
    ),
    "kill -{signal} {pid}": (
        "kill {pid} {signal}", "signal process {pid} {signal}", "end pid {pid} {signal}",
        "process {pid}: kill {signal}", "kill number {pid} {signal}", "send {pid} a kill {signal}",
    ),
    "pkill -u {user} {process}": (
        "kill {process} of {user}", "stop every {process} of {user}",
        "end all {process} run by {user}", "kill what {user} runs as {process}",
        "no more {process} for {user}", "terminate {process} owned by {user}",
    ),
    "ps -u {user} --sort={by}": (
        "processes of {user} by {by}", "what does {user} run, by {by}",
        "tasks of {user} sorted by {by}", "list what {user} runs by {by}",
        "show {user} processes by {by}", "programs of {user} ordered by {by}",
    ),
    "lsof -i :{port}": (
        "who uses port {port}", "what listens on {port}", "process on port {port}",
        "which program has port {port}", "is port {port} taken", "show users of port {port}",
    ),
    "systemctl {action} {service}": (
        "{action} {service}", "{action} the {service} service", "please {action} {service}",
        "service {service}: {action}", "{action} unit {service}", "do a {action} of {service}",
    ),
    "journalctl -u {service} -n {count}": (
        "last {count} log lines of {service}", "journal of {service}, {count} lines",
        "{count} recent messages of {service}", "what did {service} log, {count} lines",
        "show {count} journal entries of {service}", "service log {service}, {count} lines",
    ),
    "ping -c {count} {host}": (
        "ping {host} {count} times", "{count} pings to {host}", "is {host} up, {count} tries",
        "test {host} with {count} pings", "reach {host}, {count} packets",
        "send {count} pings to {host}",
    ),
    "ssh -p {port} {user}@{host}": (
        "log in to {host} as {user}, port {port}", "ssh to {host} as {user} on {port}",
        "connect {user} to {host} at {port}", "shell on {host} for {user}, port {port}",
        "open {host} on port {port} as {user}", "remote login {user} {host} {port}",
    ),
    "scp {file} {user}@{host}:": (
        "copy {file} to {host} as {user}", "send {file} to {user} on {host}",
        "upload {file} to {host} for {user}", "put {file} on {host} as {user}",
        "transfer {file} to {user} at {host}", "{file} to the home of {user} on {host}",
    ),
    "curl -o {file} {host}/{name}": (
        "download {name} from {host} as {file}", "fetch {name} of {host} to {file}",
        "get {host}/{name} into {file}", "save {name} from {host} as {file}",
        "load {name} off {host} into {file}", "pull {name} on {host} to {file}",
    ),
    "git checkout -b {kind}/{name}": (
        "new {kind} branch {name}", "start a {kind} branch called {name}",
        "branch for {kind} {name}", "create {kind} branch {name}",
        "open a branch {name} for a {kind}", "begin {name} as a {kind} branch",
    ),
    "git log -n {count} {branch}": (
        "last {count} commits on {branch}", "history of {branch}, {count} commits",
        "show {count} commits of {branch}", "{branch}: log of {count} commits",
        "recent {count} commits in {branch}", "what are the {count} newest of {branch}",
    ),
    "git grep '{word}' {branch}": (
        "search {word} in branch {branch}", "where has {branch} the word {word}",
        "git search for {word} on {branch}", "does branch {branch} use {word}",
        "look up {word} in git {branch}", "find {word} within branch {branch}",
    ),
    "git merge {how} {branch}": (
        "merge {branch} {how}", "bring in {branch} {how}", "join branch {branch} {how}",
        "take over {branch} {how}", "{how}, merge {branch}", "combine with {branch} {how}",
    ),
    "pip install {package}=={version}": (
        "install {package} {version}", "get {package} in version {version}",
        "add python package {package} {version}", "I need {package} {version}",
        "set {package} to {version}", "put {package} {version} in place",
    ),
    "at -f {file} {hour}:00 {day}": (
        "run {file} {day} at {hour}", "schedule {file} for {day} at {hour}",
        "start {file} {day}, {hour}", "{day} at {hour}, run {file}",
        "plan {file} for {day} at {hour}", "timer for {file}: {day}, {hour}",
    ),
    "usermod -aG {group} {user}": (
        "add {user} to {group}", "put {user} in group {group}", "let {user} join {group}",
        "{user} should be in {group}", "group {group} gets {user}", "make {user} part of {group}",
    ),
    "timeout {time} nice -n {level} {process}": (
        "run {process} {time} at {level} priority", "{process} for {time}, {level} priority",
        "limit {process} to {time}, {level} priority", "start {process}, {level}, for {time}",
        "give {process} {time} and {level} priority", "with {level} priority, {process} for {time}",
    ),
}  # fmt: skip
"""Command with slots, and six requests for it."""
