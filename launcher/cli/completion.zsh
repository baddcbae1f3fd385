_gearshift() {
  local -a found
  found=(${(f)"$(COMP_LINE="${(j: :)words[1,CURRENT]}" gearshift completion words 2>/dev/null)"})
  if (( $#found )); then
    compadd -Q -S '' -- ${(M)found:#*=}
    compadd -Q -- ${found:#*=}
  else
    _files
  fi
}
compdef _gearshift gearshift
