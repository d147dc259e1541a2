$(eval $(call program,imapd,imapd,daemon imap store db mail conf ipc ev base,))
