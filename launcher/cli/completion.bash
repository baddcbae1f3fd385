# Readline splits words at ':' and '=': the part that it keeps is removed from the results.
_gearshift() {
  local line=${COMP_LINE:0:COMP_POINT} word kept breaks=
  word=${line##*[[:space:]]}
  mapfile -t COMPREPLY < <(COMP_LINE=$line gearshift completion words 2>/dev/null)
  [[ ${COMPREPLY[0]-} ]] || COMPREPLY=()
  [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
  [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
  [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
  if [[ -n $breaks && $word == *[$breaks]* ]]; then
    kept=${word%"${word##*[$breaks]}"}
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
  fi
}
complete -o bashdefault -o default -F _gearshift gearshift
