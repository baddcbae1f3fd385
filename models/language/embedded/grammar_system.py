"""Twenty commands that work on the machine and its network, each with six ways to ask for it."""

from __future__ import annotations

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
"""The command, with its slots, and the ways to ask."""
