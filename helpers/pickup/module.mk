$(eval $(call program,pickup,helpers/pickup,receive smtp mail tls daemon conf ipc ev base))
