$(eval $(call program,imapd,imapd,daemon imap access store mail conf ipc ev base,))
