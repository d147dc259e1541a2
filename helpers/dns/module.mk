$(eval $(call program,dns,helpers/dns,daemon dns mail conf ipc ev base,-lcares))
$(eval $(call fuzz,dns_files,dns mail conf base,-lcrypto))
$(O)/fuzz/dns_files: $(call objects,helpers/dns/servers.c helpers/dns/hosts.c)
