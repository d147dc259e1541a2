$(eval $(call program,login,login,daemon tls imap pop3 access mail conf ipc ev base,))
