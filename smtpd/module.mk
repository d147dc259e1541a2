$(eval $(call program,smtpd,smtpd,receive smtp mail tls daemon conf ipc ev base))
