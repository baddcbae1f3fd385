complete -c gearshift -a '(env COMP_LINE=(commandline -cp) gearshift completion words 2>/dev/null)'
